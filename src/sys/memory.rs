//! The memory of the program.

#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};

/// An allocator in place of the C library's, the same in every build.
///
/// A run is about two milliseconds, and what it takes is mostly the kernel's: musl's allocator gives memory back and
/// asks for it anew some seventy times in one installation, and that of glibc meets every page with a fault. Whoever
/// forks has one thread here ([`super::detach`]), so no child begins with the lock held.
pub struct Heap(Mutex<Dlmalloc<Pages>>);

impl Heap {
    /// One with nothing in it.
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new_with_allocator(Pages)))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc<Pages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: `Dlmalloc` promises what `GlobalAlloc` asks, for one caller at a time, which the lock sees to. The lock of
// the standard library takes no memory on Linux.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { self.lock().free(memory, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised by the caller.
        unsafe { self.lock().realloc(memory, layout.size(), layout.align(), size) }
    }
}

/// Takes what the standard library takes only once it is needed, and ends the process where it gets none: room for the
/// ends of a thread's own variables. Called before anything is changed, in the main thread.
pub fn prepare() {
    thread_local! {
        static FIRST: Ending = const { Ending(Cell::new(false)) };
    }
    FIRST.with(|first| first.0.set(true));
}

/// A variable of a thread that has something to do at its end.
struct Ending(Cell<bool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Pages of the kernel, and where it gives none, of a reserve.
///
/// Rust ends a process at once that gets no memory, also in the middle of a change. What a run needs until the host is
/// as wanted or as before is a small part of this, so that it gets there.
struct Pages;

/// How many bytes the reserve has. They take no memory until they are used.
const RESERVE: usize = 4 * 1024 * 1024;

#[repr(C, align(4096))]
struct Reserve(UnsafeCell<[u8; RESERVE]>);

// SAFETY: each byte is handed out once, by a counter that only grows.
unsafe impl Sync for Reserve {}

static RESERVED: Reserve = Reserve(UnsafeCell::new([0; RESERVE]));
/// How much of it is handed out. It is never given back: the allocator keeps what it once got.
static USED: AtomicUsize = AtomicUsize::new(0);

fn from_the_reserve(size: usize) -> Option<*mut u8> {
    let fits = |used: usize| used.checked_add(size.next_multiple_of(4096)).filter(|used| *used <= RESERVE);
    let used = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
    // SAFETY: it lies within the reserve.
    Some(unsafe { RESERVED.0.get().cast::<u8>().add(used) })
}

fn is_reserved(memory: *mut u8) -> bool {
    let first = RESERVED.0.get().addr();
    (first..first + RESERVE).contains(&memory.addr())
}

/// Up to this many bytes are asked for together with the memory behind them: one call is cheaper than a fault for
/// each page, and a small piece is used to its end.
const AT_ONCE: usize = 128 * 1024;

// SAFETY: what is handed out was just mapped and belongs to nobody else.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let populate = if size <= AT_ONCE { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        // SAFETY: a new mapping touches nothing that is there.
        let memory =
            unsafe { libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if memory != libc::MAP_FAILED {
            return (memory.cast(), size, 0);
        }
        from_the_reserve(size).map_or((null_mut(), 0, 0), |memory| (memory, size, 0))
    }

    fn remap(&self, memory: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        if is_reserved(memory) {
            return null_mut();
        }
        let flags = if can_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: a piece that `alloc` gave, and of which the caller is the only user.
        let memory = unsafe { libc::mremap(memory.cast(), old, new, flags) };
        if memory == libc::MAP_FAILED { null_mut() } else { memory.cast() }
    }

    fn free_part(&self, memory: *mut u8, old: usize, new: usize) -> bool {
        if is_reserved(memory) {
            return false;
        }
        // SAFETY: as above; nobody uses what is behind `new` any more.
        unsafe { libc::munmap(memory.add(new).cast(), old - new) == 0 }
    }

    fn free(&self, memory: *mut u8, size: usize) -> bool {
        if is_reserved(memory) {
            return false;
        }
        // SAFETY: as above; nobody uses it any more.
        unsafe { libc::munmap(memory.cast(), size) == 0 }
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    /// The smallest that there is: a kernel with larger pages rounds up, or refuses to give a part back.
    fn page_size(&self) -> usize {
        4096
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A piece of memory, and the byte that all of it holds.
    struct Piece(*mut u8, Layout, u8);

    impl Piece {
        fn fill(&self) {
            // SAFETY: the piece is that long.
            unsafe { self.0.write_bytes(self.2, self.1.size()) }
        }

        /// Whether its first `size` bytes are still its own.
        fn holds(&self, size: usize) -> bool {
            // SAFETY: the piece is that long, and was filled.
            unsafe { std::slice::from_raw_parts(self.0, size) }.iter().all(|&byte| byte == self.2)
        }
    }

    fn exercise(heap: &Heap, steps: &[(u8, usize, u32)]) {
        let mut pieces: Vec<Piece> = Vec::new();
        for (number, &(what, size, align)) in steps.iter().enumerate() {
            let layout = Layout::from_size_align(size, 1 << align).expect("a layout");
            let byte = u8::try_from(number % 255).expect("small") + 1;
            match (what % 4, pieces.len()) {
                (0, _) | (_, 0) => {
                    // SAFETY: the layout is not empty.
                    let memory = unsafe { heap.alloc(layout) };
                    assert!(!memory.is_null() && memory.addr().is_multiple_of(layout.align()));
                    pieces.push(Piece(memory, layout, byte));
                }
                (1, _) => {
                    // SAFETY: as above.
                    let memory = unsafe { heap.alloc_zeroed(layout) };
                    assert!(Piece(memory, layout, 0).holds(size));
                    pieces.push(Piece(memory, layout, byte));
                }
                (2, count) => {
                    let Piece(memory, old, byte) = pieces.swap_remove(size % count);
                    // SAFETY: the piece was made with this layout.
                    let memory = unsafe { heap.realloc(memory, old, size) };
                    let layout = Layout::from_size_align(size, old.align()).expect("a layout");
                    let piece = Piece(memory, layout, byte);
                    assert!(piece.holds(size.min(old.size())));
                    pieces.push(piece);
                }
                (_, count) => {
                    let piece = pieces.swap_remove(size % count);
                    assert!(piece.holds(piece.1.size()));
                    // SAFETY: as above.
                    unsafe { heap.dealloc(piece.0, piece.1) };
                    continue;
                }
            }
            pieces.last().expect("one was pushed").fill();
        }
        for piece in pieces {
            assert!(piece.holds(piece.1.size()));
            // SAFETY: as above.
            unsafe { heap.dealloc(piece.0, piece.1) };
        }
    }

    /// Small pieces, those that are mapped at once, and those of their own.
    fn steps() -> impl Strategy<Value = Vec<(u8, usize, u32)>> {
        let size = prop_oneof![8 => 1_usize..300, 3 => 300_usize..70_000, 1 => 70_000_usize..1_500_000];
        prop::collection::vec((any::<u8>(), size, 0_u32..13), 1..200)
    }

    #[test]
    fn the_reserve_is_handed_out_once_and_stays() {
        let first = from_the_reserve(10).expect("a page");
        let second = from_the_reserve(5_000).expect("two pages");
        assert_eq!(second.addr() - first.addr(), 4096);
        assert!(is_reserved(first) && is_reserved(second) && !is_reserved(null_mut()));
        assert!(!Pages.free(first, 4096) && !Pages.free_part(second, 8192, 4096));
        assert!(Pages.remap(second, 8192, 4096, true).is_null());
        // Nothing else in this process takes of it: the heap of the tests is another one.
        assert_eq!(from_the_reserve(RESERVE), None);
        assert!(from_the_reserve(RESERVE - 3 * 4096).is_some());
        assert_eq!(from_the_reserve(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_do_not_overlap_and_keep_what_they_hold(steps in steps()) {
            exercise(&Heap::new(), &steps);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn threads_can_share_it(all in prop::collection::vec(steps(), 4)) {
            let heap = Heap::new();
            std::thread::scope(|scope| {
                for steps in &all {
                    scope.spawn(|| exercise(&heap, steps));
                }
            });
        }
    }
}
