//! What has been added for each key, aggregated in an accumulator.

use millrace_core::{Error, Result};

use super::{
    StateValue,
    cell::{Handle, access},
    layout::{Aggregating, OneLayout},
};

/// Aggregates values in an accumulator, from which a result is computed.
///
/// ```
/// use millrace_state::AggregateFunction;
///
/// #[derive(Clone)]
/// struct Average;
///
/// impl AggregateFunction for Average {
///     type In = f64;
///     type Accumulator = (f64, u64);
///     type Out = f64;
///
///     fn create_accumulator(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///
///     fn add(&self, value: f64, (sum, count): &mut (f64, u64)) {
///         *sum += value;
///         *count += 1;
///     }
///
///     fn get_result(&self, (sum, count): &(f64, u64)) -> f64 {
///         sum / *count as f64
///     }
/// }
/// ```
pub trait AggregateFunction: Clone + Send + 'static {
    /// What is added.
    type In;
    /// What is kept.
    type Accumulator: StateValue;
    /// What comes out.
    type Out;

    /// The accumulator of a key before its first value.
    fn create_accumulator(&self) -> Self::Accumulator;

    /// Adds a value.
    fn add(&self, value: Self::In, accumulator: &mut Self::Accumulator);

    /// The result for what was added.
    fn get_result(&self, accumulator: &Self::Accumulator) -> Self::Out;
}

/// An accumulator for each key, in which a function aggregates all that is added.
///
/// A handle that was not obtained from a store (`AggregatingState::default()`) can be kept in a struct and sent to
/// another thread, but not used.
pub struct AggregatingState<A: AggregateFunction> {
    handle: Handle<OneLayout<A::Accumulator, Aggregating>>,
    function: Option<A>,
}

impl<A: AggregateFunction> Clone for AggregatingState<A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), function: self.function.clone() }
    }
}

impl<A: AggregateFunction> Default for AggregatingState<A> {
    fn default() -> Self {
        Self { handle: Handle::default(), function: None }
    }
}

impl<A: AggregateFunction> AggregatingState<A> {
    pub(super) fn new(handle: Handle<OneLayout<A::Accumulator, Aggregating>>, function: A) -> Self {
        Self { handle, function: Some(function) }
    }

    /// The result for the current key's values; `None` where nothing was added.
    pub fn get(&self) -> Result<Option<A::Out>> {
        let accumulator = access!(self.handle, state => state.get())?;
        let Some(accumulator) = accumulator else { return Ok(None) };
        Ok(Some(self.function()?.get_result(&accumulator)))
    }

    /// Adds a value to the current key's.
    pub fn add(&self, value: A::In) -> Result<()> {
        self.handle.cell()?;
        let function = self.function()?;
        let first = |value| {
            let mut accumulator = function.create_accumulator();
            function.add(value, &mut accumulator);
            accumulator
        };
        access!(self.handle, state => state.add(value, first, |accumulator, value| function.add(value, accumulator)))
    }

    /// Removes the current key's accumulator.
    pub fn clear(&self) -> Result<()> {
        access!(self.handle, state => state.clear())
    }

    fn function(&self) -> Result<&A> {
        self.function.as_ref().ok_or_else(|| Error::internal("an aggregating state has no function"))
    }
}
