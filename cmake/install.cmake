# The program, the shipped recipes, and what find_package(llmpress) finds.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/llmpress)

install(TARGETS llmpress RUNTIME)
install(DIRECTORY recipes/ DESTINATION ${CMAKE_INSTALL_DATADIR}/llmpress/recipes FILES_MATCHING PATTERN "*.yaml")
# Beside each other as in the tree: llmpress.h includes "compress/core/error.h".
install(FILES compress/api/llmpress.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llmpress)
install(FILES compress/core/error.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llmpress/compress/core)
install(TARGETS llmpress_shared EXPORT llmpress LIBRARY INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT llmpress FILE llmpressConfig.cmake NAMESPACE llmpress:: DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/llmpressConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/llmpressConfigVersion.cmake DESTINATION ${package})
