//! The exchanges that look at no record: forward, rebalance, broadcast.

use std::marker::PhantomData;

use millrace_core::{Batch, Record, Result, schema::Schema};

use super::{
    Exchange, Partitioner,
    deal::{BroadcastPartitioner, ForwardPartitioner, RebalancePartitioner},
    wire,
};

macro_rules! exchange {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $partitioner:expr) => {
        $(#[$doc])*
        pub struct $name<T>(PhantomData<fn() -> T>);

        impl<T> $name<T> {
            /// The exchange of an edge of records of this type.
            pub fn new() -> Self {
                Self(PhantomData)
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<T: Record> Exchange for $name<T> {
            fn partitioner(&self, subtask: u32, targets: u32, _max_parallelism: u32) -> Box<dyn Partitioner> {
                let make: fn(u32, u32) -> Box<dyn Partitioner> = $partitioner;
                make(subtask, targets)
            }

            fn encode(&self, batch: &Batch, buffer: Vec<u8>) -> Result<Vec<u8>> {
                wire::encode::<T>(batch, buffer)
            }

            fn decode(&self, bytes: &[u8]) -> Result<Batch> {
                wire::decode::<T>(bytes).map(Batch::new)
            }

            fn schema(&self) -> Result<Schema> {
                Schema::of::<T>()
            }

            fn type_name(&self) -> String {
                format!("{} {}", $kind, std::any::type_name::<T>())
            }
        }
    };
}

exchange!(
    /// From subtask `i` to subtask `i`.
    ForwardExchange,
    "forward",
    |subtask, _| Box::new(ForwardPartitioner::new(subtask))
);
exchange!(
    /// To all subtasks in turn.
    RebalanceExchange,
    "rebalance",
    |subtask, targets| Box::new(RebalancePartitioner::new(subtask, targets))
);
exchange!(
    /// A copy to every subtask.
    BroadcastExchange,
    "broadcast",
    |_, targets| Box::new(BroadcastPartitioner::new(targets))
);
