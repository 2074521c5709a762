# Third-party libraries as interface targets, so that the graph in the root
# CMakeLists.txt shows who uses which. Headers are marked SYSTEM: our warnings
# are for our code.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

function(llmpress_wrap name)
  cmake_parse_arguments(ARG "" "" "INCLUDES;LIBRARIES" ${ARGN})
  add_library(${name} INTERFACE)
  target_include_directories(${name} SYSTEM INTERFACE ${ARG_INCLUDES})
  target_link_libraries(${name} INTERFACE ${ARG_LIBRARIES})
endfunction()

# OpenBLAS is linked statically so that compress/core/blas_core_type.cpp can
# choose its kernels before its own start-up code looks at the processor:
# OpenBLAS 0.3.21 takes Intel processors newer than itself for a 2004 Prescott.
find_library(OPENBLAS_STATIC libopenblas.a PATH_SUFFIXES openblas-openmp openblas-pthread openblas-serial REQUIRED)
find_path(OPENBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas-openmp openblas-pthread openblas REQUIRED)
find_library(GOMP NAMES gomp libgomp.so.1 HINTS /usr/lib/gcc/${CMAKE_LIBRARY_ARCHITECTURE}/12 REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
get_target_property(eigen_include Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
llmpress_wrap(llmpress_blas INCLUDES ${OPENBLAS_INCLUDE} ${eigen_include} LIBRARIES ${OPENBLAS_STATIC} ${GOMP} Threads::Threads ${CMAKE_DL_LIBS} m)
llmpress_wrap(llmpress_eigen INCLUDES ${eigen_include})

pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5)
llmpress_wrap(llmpress_hdf5 LIBRARIES PkgConfig::HDF5)
find_path(JSON_INCLUDE nlohmann/json.hpp REQUIRED)
llmpress_wrap(llmpress_json INCLUDES ${JSON_INCLUDE})
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
llmpress_wrap(llmpress_sentencepiece LIBRARIES PkgConfig::SENTENCEPIECE)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
llmpress_wrap(llmpress_pcre2 LIBRARIES PkgConfig::PCRE2)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc)
llmpress_wrap(llmpress_icu LIBRARIES PkgConfig::ICU)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
llmpress_wrap(llmpress_crypto LIBRARIES PkgConfig::CRYPTO)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
llmpress_wrap(llmpress_xxhash LIBRARIES PkgConfig::XXHASH)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-cpp)
llmpress_wrap(llmpress_yaml LIBRARIES PkgConfig::YAML)
find_package(fmt REQUIRED)
get_target_property(fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
llmpress_wrap(llmpress_fmt INCLUDES ${fmt_include} LIBRARIES fmt::fmt)
find_package(spdlog REQUIRED)
get_target_property(spdlog_include spdlog::spdlog INTERFACE_INCLUDE_DIRECTORIES)
llmpress_wrap(llmpress_spdlog INCLUDES ${spdlog_include} LIBRARIES spdlog::spdlog)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
llmpress_wrap(llmpress_cli11 INCLUDES ${CLI11_INCLUDE})

# Several processes for one run (compress/tool/mpi_ranks.h). On where MPI is
# installed, unless LLMPRESS_MPI says otherwise; its C interface alone.
set(MPI_CXX_SKIP_MPICXX TRUE)
find_package(MPI QUIET COMPONENTS CXX)
option(LLMPRESS_MPI "Runs spread over processes by MPI" ${MPI_CXX_FOUND})
add_library(llmpress_mpi INTERFACE)
if(LLMPRESS_MPI)
  find_package(MPI REQUIRED COMPONENTS CXX)
  target_include_directories(llmpress_mpi SYSTEM INTERFACE ${MPI_CXX_INCLUDE_DIRS})
  target_link_libraries(llmpress_mpi INTERFACE MPI::MPI_CXX)
  target_compile_definitions(llmpress_mpi INTERFACE LLMPRESS_HAVE_MPI)
endif()
