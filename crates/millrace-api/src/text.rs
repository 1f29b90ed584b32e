//! Texts with a form of their own: durations, numbers, sizes, URIs. The schema checks the form.

use std::{borrow::Cow, fmt};

use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text of a form that the schema checks, and what the API server answers to another: `self` is the text.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $longest:literal, $rule:literal, $message:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let rule = Rule::new($rule).message(kube::core::Message::Expression(
                    concat!("'\"' + self + '\" ", $message, "'").to_owned(),
                ));
                json_schema!({ "type": "string", "maxLength": $longest, "x-kubernetes-validations": [rule] })
            }
        }
    };
}

text!(
    /// A span of time: a whole number and a unit, such as `10s`.
    Duration,
    16,
    "self.matches('^[0-9]{1,12}(ms|s|m|min|h|d)$')",
    "is not a duration: write a whole number and one of the units ms, s, m, h, d, such as 10s or 5m"
);
text!(
    /// A number that may have decimals.
    Number,
    16,
    "self.matches('^[0-9]+([.][0-9]+)?$')",
    "is not a number: write digits, and decimals behind a point, in quotes, such as \"1.5\""
);
text!(
    /// An amount of storage.
    Size,
    32,
    "isQuantity(self) && quantity(self).isGreaterThan(quantity(\"0\"))",
    "is not a size: write a number greater than 0 and a unit, such as 10Gi"
);
text!(
    /// Where checkpoints are.
    StorageUri,
    1024,
    "self.matches('^((s3|hdfs)://[^/[:space:]]+|file:///[^/[:space:]]+)(/[^[:space:]]*)?$')",
    "is no place for checkpoints: write s3://bucket/path, hdfs://namenode:port/path or file:///path"
);
