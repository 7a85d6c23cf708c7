// The pictures of a dataset: files with classes or boxes, decoded when they are asked for.
//
//   {"images": {"folder": "val", "preset": "timm", "height": 240, "width": 240}}
//
// `folder` holds a folder for each class, in the order of their names, or the files themselves
// without classes. In place of that, `list` names a text file of lines PATH or PATH CLASS, and
// `coco` a COCO annotation file, whose categories are numbered from 0 in the order of their ids;
// their paths lie below `folder`. docs/data.md has all fields.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/fields.h"
#include "evaluator/file_list.h"
#include "evaluator/image_input.h"

namespace pared {

// In pixels of the picture, from its top left corner.
struct LabelledBox {
  double left = 0, top = 0, width = 0, height = 0;
  int64_t category = 0;
  double area = 0;        // of the object's outline, where the annotations tell it; else of the box
  bool is_crowd = false;  // detections within it count neither way
};

class ImageSet {
 public:
  // `json` is the manifest's "images"; paths lie below `folder`. Throws kInvalidArgument or
  // kNotFound at "/images/...", the list's line, or the file.
  static ImageSet Open(const Json& json, const std::filesystem::path& folder);

  const std::string& input() const {
    return manifest_.input;
  }  // the model's input; "*": its only one
  int64_t count() const { return std::ssize(files_); }
  bool has_labels() const { return has_labels_; }
  bool has_boxes() const { return has_boxes_; }
  int64_t label(int64_t sample) const { return file(sample).label; }
  const std::vector<LabelledBox>& boxes(int64_t sample) const { return file(sample).boxes; }

  // Decodes and prepares. Throws naming the file.
  Tensor Prepare(int64_t sample) const;
  // Where the input's pixels lie in the picture; reads its header.
  ImagePlacement Placement(int64_t sample) const;

  // The manifest with all defaults filled in, as JSON text.
  std::string Settings() const;
  std::filesystem::path path(int64_t sample) const { return folder_ / file(sample).path; }

  struct Manifest {
    std::string input = "*", folder = ".", list, coco, preset = "torchvision";
    ImageInput image;
    Json mean, std;
  };

 private:
  struct File {
    std::string path;
    int64_t label = -1;
    std::vector<LabelledBox> boxes;
  };
  const File& file(int64_t sample) const;
  void Take(FileList list);
  void ReadCoco(const std::filesystem::path& path);

  Manifest manifest_;
  std::filesystem::path folder_;  // of the pictures
  std::vector<File> files_;
  bool has_labels_ = false, has_boxes_ = false;
};

}  // namespace pared
