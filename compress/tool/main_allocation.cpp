// The program's operator new: large blocks come in huge pages where the system
// gives them to who asks, since clearing weights and states page by page would
// cost as much as rounding them.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// The huge pages that lie in the block as a whole, so that it takes no more than
// it did. A hint: without them everything still works.
void ask_for_huge_pages(void* block, std::size_t size) {
#if defined(__linux__)
  const auto begin = reinterpret_cast<std::uintptr_t>(block);
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (begin + size) / kHugePage * kHugePage;
  if (first >= end) return;
  (void)madvise(static_cast<std::byte*>(block) + (first - begin), end - first,
                MADV_HUGEPAGE);
#else
  (void)block;
  (void)size;
#endif
}

using Allocate = void* (*)(std::size_t);

}  // namespace

// The memory is the library's, or of whoever stands before it (a preloaded
// allocator); its operator delete takes it back.
void* operator new(std::size_t size) {
  static const auto next =
      reinterpret_cast<Allocate>(dlsym(RTLD_NEXT, "_Znwm"));
  void* const block = next != nullptr ? next(size) : std::malloc(size | 1);
  if (block == nullptr) throw std::bad_alloc();
  if (size >= 2 * kHugePage) ask_for_huge_pages(block, size);
  return block;
}
