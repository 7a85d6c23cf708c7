// Packed files: lossless, for models whose weights are mostly one byte value, as pruned INT8 is.
//
// A file is cut into blocks of up to 1 MiB. Of each, the shortest of these is kept:
//   stored     the bytes
//   zstd       the bytes, compressed by zstd (RFC 8878)
//   bitmask    the commonest byte value left out: a bit a byte (1: another value), then the others
//   gaps       the same, with the distances between the others in place of the bits
// the last two again by zstd. Zeros at random places cost their entropy in `gaps`; N:M patterns and
// blocks, which repeat, do best in `bitmask`.
//
//   "PAREDPK1"  {name size: u8, name, content size: u64, {block}}...  0: u8
//   block       coding: u8, common byte: u8, content size: u32, {size: u32, zstd frame or bytes} x
//   1 or 2
//
// A name may lead through folders, with slashes. Numbers are little endian. Each zstd frame carries
// a checksum.

#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace pared {

// Writes the files into `packed`, by their names from the folder of the first, beneath which all
// must lie. An older `packed` is replaced once the new one is whole. Throws kInvalidArgument (a
// name that leads elsewhere), kNotFound, kUnavailable where the disk is full, kInternal; nothing is
// left behind then.
void PackFiles(const std::vector<std::filesystem::path>& files,
               const std::filesystem::path& packed);

// Writes what `packed` holds into `folder` and returns the paths, in the order of PackFiles. The
// files appear once all are whole; existing ones are not replaced. Throws kInvalidArgument (no
// packed file, damaged, more than `bytes_max` of content; where = `packed`), kConflict (a file
// exists), kUnavailable; nothing is left behind then.
std::vector<std::filesystem::path> UnpackFiles(const std::filesystem::path& packed,
                                               const std::filesystem::path& folder,
                                               int64_t bytes_max);

}  // namespace pared
