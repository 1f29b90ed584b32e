package millrace.bench;

/** The keys, as the Rust job makes them. */
final class Keys {
    private Keys() {}

    static String key(long index, long keys) {
        return new StringBuilder(24).append("key-").append(Long.remainderUnsigned(mix(index), keys)).toString();
    }

    /** splitmix64 (Steele, Lea and Flood, 2014). */
    static long mix(long index) {
        long z = index + 0x9E3779B97F4A7C15L;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
