//! Keeping a long-lived agent small: how this process's allocator gives memory back.
//!
//! glibc grows an arena a thread and raises its mmap threshold after the first large buffer, so that a burst of calls
//! leaves a hundred MiB behind for ever. Two arenas and a fixed threshold cost nothing that a storage agent would notice.
#![allow(unsafe_code, reason = "mallopt has no safe wrapper")]

use nix::libc;

/// Arenas of the allocator.
const ARENAS: libc::c_int = 2;
/// Buffers of this size in bytes and more are given back to the kernel as soon as they are freed.
const THRESHOLD: libc::c_int = 128 << 10;

/// Ask for it; best called before the first thread is started. An allocator that does not know a setting ignores it.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and only changes the allocator's own settings; it may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
    }
}
