//! A source's splits as the operator list that stands in a checkpoint.

use millrace_core::{
    Result, codec,
    operator_state::{OperatorListSnapshot, Redistribution},
    schema::Schema,
};
use millrace_state::SOURCE_SPLITS;

use crate::source::EncodedSplit;

/// The list [`SOURCE_SPLITS`]: each item is an [`EncodedSplit`], the schema that of the split inside.
pub fn encode_splits(splits: &[EncodedSplit], schema: Schema) -> Result<OperatorListSnapshot> {
    Ok(OperatorListSnapshot {
        name: SOURCE_SPLITS.to_string(),
        redistribution: Redistribution::Split,
        schema,
        items: splits.iter().map(codec::encode).collect::<Result<_>>()?,
    })
}

/// The splits in a list that [`encode_splits`] made, as they were written.
pub fn decode_splits(list: &OperatorListSnapshot) -> Result<Vec<EncodedSplit>> {
    list.items.iter().map(|item| codec::decode(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_as_they_were_written() {
        let splits = vec![EncodedSplit { id: "a".into(), bytes: vec![1, 2] }];
        let list = encode_splits(&splits, Schema::of::<(String, u64)>().unwrap()).unwrap();
        assert_eq!(decode_splits(&list).unwrap(), splits);
    }
}
