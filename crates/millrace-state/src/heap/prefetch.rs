//! Bringing memory near before it is needed.
//!
//! Memory latency is what limits keyed state that is larger than the caches: a batch's slots are asked for together, so
//! that the waits overlap. Stable Rust has no safe way to say so; this is the one unsafe line of the crate.

/// Asks the processor to load the cache line at `address`. A hint: any address is allowed, nothing is read.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) fn prefetch(address: *const u8) {
    // SAFETY: PREFETCHT0 never faults, whatever the address, and has no effect on memory; SSE, which it belongs to, is
    // part of every x86-64 processor.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast()) }
}

/// No hint on this architecture: the same results, more waiting.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch(_address: *const u8) {}
