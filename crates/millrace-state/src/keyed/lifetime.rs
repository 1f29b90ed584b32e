//! How long what is in a table lives. The kinds of state are written once over [`Lifetime`]; without a time to live
//! ([`Forever`]) nothing of it is left in the compiled code, nor in the table.

use std::cell::Cell;

use millrace_core::clock::Clock;

use super::StateValue;
use crate::ttl::StateTtlConfig;

/// What comes of a value that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there.
    Live,
    /// It is there and lives longer for having been read.
    Renewed,
    /// It is gone.
    Expired,
}

/// How long values live.
pub(super) trait Lifetime: 'static {
    /// Whether anything ever expires.
    const EXPIRES: bool;
    /// A value in a table.
    type Held<T: StateValue>: Clone + Send + Sync + 'static;

    /// A value that is written now.
    fn hold<T: StateValue>(&self, value: T) -> Self::Held<T>;

    /// A value from a snapshot. Without an expiry it counts as written now.
    fn restore<T: StateValue>(&self, value: T, expiry: Option<u64>) -> Self::Held<T>;

    /// The value.
    fn value<T: StateValue>(held: &Self::Held<T>) -> &T;

    /// The value, to be changed. [`Self::renew`] follows.
    fn value_mut<T: StateValue>(held: &mut Self::Held<T>) -> &mut T;

    /// When it expires.
    fn expiry<T: StateValue>(held: &Self::Held<T>) -> Option<u64>;

    /// What comes of reading it now.
    fn fate<T: StateValue>(&self, held: &Self::Held<T>) -> Fate;

    /// Lets it live on from now.
    fn renew<T: StateValue>(&self, held: &mut Self::Held<T>);

    /// Whether what has expired may be seen once more.
    fn shows_expired(&self) -> bool;

    /// Whether it has expired.
    #[inline]
    fn is_expired<T: StateValue>(&self, held: &Self::Held<T>) -> bool {
        self.fate(held) == Fate::Expired
    }
}

/// No time to live.
pub(super) struct Forever;

impl Lifetime for Forever {
    const EXPIRES: bool = false;
    type Held<T: StateValue> = T;

    #[inline]
    fn hold<T: StateValue>(&self, value: T) -> T {
        value
    }

    fn restore<T: StateValue>(&self, value: T, _expiry: Option<u64>) -> T {
        value
    }

    #[inline]
    fn value<T: StateValue>(held: &T) -> &T {
        held
    }

    #[inline]
    fn value_mut<T: StateValue>(held: &mut T) -> &mut T {
        held
    }

    #[inline]
    fn expiry<T: StateValue>(_held: &T) -> Option<u64> {
        None
    }

    #[inline]
    fn fate<T: StateValue>(&self, _held: &T) -> Fate {
        Fate::Live
    }

    #[inline]
    fn renew<T: StateValue>(&self, _held: &mut T) {}

    #[inline]
    fn shows_expired(&self) -> bool {
        false
    }
}

/// A time to live, and the time of the current access.
pub(super) struct Ttl {
    config: StateTtlConfig,
    clock: Clock,
    now: Cell<u64>,
}

impl Ttl {
    pub(super) fn new(config: StateTtlConfig, clock: Clock) -> Self {
        let now = Cell::new(clock.now());
        Self { config, clock, now }
    }

    pub(super) fn config(&self) -> StateTtlConfig {
        self.config
    }

    /// An access begins: it sees one time.
    pub(super) fn begin(&self) {
        self.now.set(self.clock.now());
    }

    /// When what is written now expires.
    pub(super) fn new_expiry(&self) -> u64 {
        self.config.expiry(self.now.get())
    }

    /// What comes of reading something with this expiry.
    pub(super) fn fate_of(&self, expiry: u64) -> Fate {
        match expiry <= self.now.get() {
            true => Fate::Expired,
            false if self.config.updates_on_read() => Fate::Renewed,
            false => Fate::Live,
        }
    }
}

/// A value with its expiry.
#[derive(Clone)]
pub(super) struct Timed<T> {
    value: T,
    expiry: u64,
}

impl Lifetime for Ttl {
    const EXPIRES: bool = true;
    type Held<T: StateValue> = Timed<T>;

    fn hold<T: StateValue>(&self, value: T) -> Timed<T> {
        Timed { value, expiry: self.new_expiry() }
    }

    fn restore<T: StateValue>(&self, value: T, expiry: Option<u64>) -> Timed<T> {
        Timed { value, expiry: expiry.unwrap_or_else(|| self.new_expiry()) }
    }

    fn value<T: StateValue>(held: &Timed<T>) -> &T {
        &held.value
    }

    fn value_mut<T: StateValue>(held: &mut Timed<T>) -> &mut T {
        &mut held.value
    }

    fn expiry<T: StateValue>(held: &Timed<T>) -> Option<u64> {
        Some(held.expiry)
    }

    fn fate<T: StateValue>(&self, held: &Timed<T>) -> Fate {
        self.fate_of(held.expiry)
    }

    fn renew<T: StateValue>(&self, held: &mut Timed<T>) {
        held.expiry = self.new_expiry();
    }

    fn shows_expired(&self) -> bool {
        self.config.shows_expired()
    }
}
