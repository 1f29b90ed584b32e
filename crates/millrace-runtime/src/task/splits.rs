//! A source's splits as the operator list that stands in a checkpoint.

use millrace_core::{
    Error, Result, codec,
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

/// The splits in a list that [`encode_splits`] made; refused where they are of another type than the program's.
pub fn decode_splits(list: &OperatorListSnapshot, schema: &Schema) -> Result<Vec<EncodedSplit>> {
    if list.schema != *schema {
        return Err(Error::invalid(format!(
            "the source's splits in the checkpoint are of type {}, the program's of type {schema}: \
             the source was replaced by another; give it another uid",
            list.schema
        )));
    }
    list.items.iter().map(|item| codec::decode(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_as_they_were_written_by_the_same_type_only() {
        let schema = Schema::of::<(String, u64)>().unwrap();
        let splits = vec![EncodedSplit { id: "a".into(), bytes: vec![1, 2] }];
        let list = encode_splits(&splits, schema.clone()).unwrap();
        assert_eq!(decode_splits(&list, &schema).unwrap(), splits);
        let other = Schema::of::<u32>().unwrap();
        assert!(decode_splits(&list, &other).unwrap_err().message.contains("another uid"));
    }
}
