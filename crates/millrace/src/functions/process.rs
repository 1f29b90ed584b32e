//! Process functions: they see the time, and behind a `key_by` they have timers.

use std::marker::PhantomData;

use millrace_core::{FunctionResult, Result, key::Key};
use millrace_state::KeyedStateStore;

use super::{Collector, KeyedContext, RuntimeContext};
use crate::operators::CallContext;

/// Handles records with a look at the time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function for a stream of `{In}`",
    note = "implement `ProcessFunction<{In}, _>`; timers and keyed state (`KeyedProcessFunction`) need a `key_by`"
)]
pub trait ProcessFunction<In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record; results go to `out`.
    fn process_element(&mut self, record: In, context: &ProcessContext<'_>, out: &mut Collector<Out>)
    -> FunctionResult;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// Handles the records of a keyed stream, with state and timers for each key.
///
/// ```
/// use millrace::prelude::*;
///
/// /// Tells how often a word was seen, once it has not been seen for a second.
/// #[derive(Clone, Default)]
/// struct CountUntilQuiet {
///     count: ValueState<u64>,
///     last: ValueState<u64>,
/// }
///
/// impl KeyedProcessFunction<String, String, String> for CountUntilQuiet {
///     fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
///         self.count = context.value_state("count", 0)?;
///         self.last = context.value_state("last", 0)?;
///         Ok(())
///     }
///
///     fn process_element(
///         &mut self,
///         _word: String,
///         context: &KeyedProcessContext<'_, String>,
///         _out: &mut Collector<String>,
///     ) -> FunctionResult {
///         let timers = context.timer_service();
///         let now = timers.current_processing_time();
///         self.count.modify(|count| *count += 1)?;
///         self.last.set(now)?;
///         timers.register_processing_time_timer(now + 1000)?;
///         Ok(())
///     }
///
///     fn on_timer(
///         &mut self,
///         timestamp: u64,
///         context: &KeyedProcessContext<'_, String>,
///         out: &mut Collector<String>,
///     ) -> FunctionResult {
///         if self.last.get()? + 1000 == timestamp {
///             out.collect(format!("{} {}", context.current_key()?, self.count.get()?));
///         }
///         Ok(())
///     }
/// }
///
/// let env = StreamExecutionEnvironment::new();
/// env.from_collection(["to be or not to be".to_string()])
///     .flat_map(|line, out| out.extend(line.split(' ').map(String::from)))
///     .key_by_ref(|word| word.as_str())
///     .process(CountUntilQuiet::default())
///     .print();
/// env.execute("quiet words")?;
/// # Ok::<(), millrace::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function for a stream of `{In}` that is keyed by `{K}`",
    note = "implement `KeyedProcessFunction<{K}, {In}, _>`"
)]
pub trait KeyedProcessFunction<K, In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut KeyedContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record; results go to `out`.
    fn process_element(
        &mut self,
        record: In,
        context: &KeyedProcessContext<'_, K>,
        out: &mut Collector<Out>,
    ) -> FunctionResult;

    /// A timer fires that was registered for `timestamp`. State is that of the timer's key. Timers are part of the
    /// checkpoint: one that was due while the job was down fires when it is up again. When the input has ended timers
    /// don't fire any more.
    fn on_timer(
        &mut self,
        _timestamp: u64,
        _context: &KeyedProcessContext<'_, K>,
        _out: &mut Collector<Out>,
    ) -> FunctionResult {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// What a [`ProcessFunction`] may use while it handles a record.
pub struct ProcessContext<'a>(CallContext<'a>);

impl<'a> ProcessContext<'a> {
    pub(crate) fn new(context: CallContext<'a>) -> Self {
        Self(context)
    }

    /// The time now, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> u64 {
        self.0.clock.now()
    }
}

/// What a [`KeyedProcessFunction`] may use while it handles a record or a timer.
pub struct KeyedProcessContext<'a, K> {
    call: CallContext<'a>,
    state: &'a KeyedStateStore,
    key: PhantomData<fn() -> K>,
}

impl<'a, K> KeyedProcessContext<'a, K> {
    pub(crate) fn new(call: CallContext<'a>) -> Result<Self> {
        Ok(Self { call, state: call.keyed()?, key: PhantomData })
    }

    /// Time and timers.
    pub fn timer_service(&self) -> TimerService<'a> {
        TimerService { call: self.call, state: self.state }
    }
}

impl<K: Key> KeyedProcessContext<'_, K> {
    /// The key of the record or of the timer.
    pub fn current_key(&self) -> Result<K> {
        self.state.current_key()
    }
}

/// The time, and the timers of the current key. Times are in milliseconds since the epoch.
pub struct TimerService<'a> {
    call: CallContext<'a>,
    state: &'a KeyedStateStore,
}

impl TimerService<'_> {
    /// The time now.
    pub fn current_processing_time(&self) -> u64 {
        self.call.clock.now()
    }

    /// Calls `on_timer` at `time`, or soon after it. A key has one timer at the same time, however often it is
    /// registered.
    pub fn register_processing_time_timer(&self, time: u64) -> Result<()> {
        self.state.register_timer(time)
    }

    /// Deletes a timer, where there is one.
    pub fn delete_processing_time_timer(&self, time: u64) -> Result<()> {
        self.state.delete_timer(time)
    }
}
