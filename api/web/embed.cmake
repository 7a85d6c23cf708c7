# Writes OUTPUT, a C++ file with the files of the web page: cmake -D FOLDER=api/web -D CHART=chart.js -D OUTPUT=web_files.cc -P embed.cmake
set(types html "text/html" css "text/css" js "text/javascript" svg "image/svg+xml")
file(GLOB files ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
set(code "#include \"api/web.h\"\n\nnamespace pared {\nnamespace {\n\nconstexpr WebFile kFiles[] = {\n")

function(embed name path)  # appends to ${code}
  string(REGEX REPLACE ".*\\." "" extension ${name})
  list(FIND types ${extension} place)
  math(EXPR place "${place} + 1")
  list(GET types ${place} type)
  file(READ ${path} text)
  set(code "${code}    {\"${name}\", \"${type}; charset=utf-8\", R\"~web~(${text})~web~\"},\n" PARENT_SCOPE)
endfunction()

foreach(path ${files})
  get_filename_component(name ${path} NAME)
  embed(${name} ${path})
endforeach()
if(EXISTS "${CHART}")
  embed(chart.js "${CHART}")
endif()
string(APPEND code "};\n\n}  // namespace\n\nstd::span<const WebFile> WebFiles() { return kFiles; }\n\n}  // namespace pared\n")
file(WRITE ${OUTPUT} "${code}")
