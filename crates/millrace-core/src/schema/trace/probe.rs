//! Asking a type what no schema tells: whether a field may be missing, or one too many be there.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Recorder, Refusal, Slot, Tracer, explore, visit_values};
use crate::schema::Format;

/// Asks a type whether it can be read although one struct or variant in it is not as it is today.
pub(in crate::schema) fn probe<T: DeserializeOwned>(probe: &Probe) -> Result<(), Refusal> {
    explore::<T>(Tracer { probe: Some(probe), ..Tracer::default() }).map(drop)
}

/// A struct (`Name`) or a variant (`Name::Variant`) that lacks a field, or has one too many.
#[derive(Debug)]
pub(in crate::schema) struct Probe {
    pub(in crate::schema) container: String,
    pub(in crate::schema) without: Option<String>,
    pub(in crate::schema) with: Option<String>,
}

impl Probe {
    pub(in crate::schema) fn without(container: &str, field: &str) -> Self {
        Self { container: container.to_string(), without: Some(field.to_string()), with: None }
    }

    pub(in crate::schema) fn with(container: &str, field: &str) -> Self {
        Self { container: container.to_string(), without: None, with: Some(field.to_string()) }
    }
}

/// As [`visit_values`], for named fields; where they are probed they are told by name.
pub(super) fn visit_fields<'de, V: Visitor<'de>>(
    tracer: &mut Tracer<'_>,
    names: &'static [&'static str],
    probe: Option<&Probe>,
    visitor: V,
) -> Result<(V::Value, Vec<Slot>), Refusal> {
    let Some(probe) = probe else { return visit_values(tracer, names.len(), visitor) };
    let mut slots = vec![Slot::default(); names.len()];
    let value = visitor.visit_map(ProbedFields { tracer, names, slots: &mut slots, probe, at: 0 })?;
    // What was left out has no format; nobody looks at it.
    slots.iter_mut().filter(|slot| slot.is_none()).for_each(|slot| *slot = Some(Format::Unit));
    Ok((value, slots))
}

/// The fields of a struct or variant by name, but for what the probe changes.
struct ProbedFields<'a, 'p> {
    tracer: &'a mut Tracer<'p>,
    names: &'static [&'static str],
    slots: &'a mut [Slot],
    probe: &'a Probe,
    at: usize,
}

impl<'de> de::MapAccess<'de> for ProbedFields<'_, '_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        if self.names.get(self.at).is_some_and(|name| Some(*name) == self.probe.without.as_deref()) {
            self.at += 1;
        }
        let extra = || self.probe.with.as_deref().filter(|_| self.at == self.names.len());
        match self.names.get(self.at).copied().or_else(extra) {
            Some(name) => seed.deserialize(name.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.at += 1;
        match self.slots.get_mut(self.at - 1) {
            Some(slot) => seed.deserialize(Recorder { tracer: self.tracer, slot }),
            None => seed.deserialize(().into_deserializer()),
        }
    }
}
