//! Merging the user's pod templates, as a strategic merge patch does: lists by their keys, maps by their keys, what is
//! set replaces.

use k8s_openapi::{
    DeepMerge,
    api::core::v1::{PodTemplateSpec, Toleration},
};
use millrace_api::PodTemplate;
use serde::Deserialize;

/// A user's pod template, as Kubernetes reads it.
#[derive(Debug)]
pub(crate) struct ParsedTemplate {
    /// What it says.
    pub template: PodTemplateSpec,
    /// The paths of fields that pod templates do not have.
    pub unknown: Vec<String>,
}

/// Reads a user's pod template; an error says where it is not one, and why.
pub(crate) fn parse(template: &PodTemplate) -> Result<ParsedTemplate, String> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(show(&path));
    let ignored = serde_ignored::Deserializer::new(&template.0, &mut note);
    let parsed = PodTemplateSpec::deserialize(serde_path_to_error::Deserializer::new(ignored, &mut track));
    match parsed {
        Ok(template) => Ok(ParsedTemplate { template, unknown }),
        Err(error) => Err(format!("{}: {error}", track.path())),
    }
}

/// A path as Kubernetes writes it.
fn show(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", show(parent)),
        Path::Map { parent, key } => match show(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => show(parent),
    }
}

/// Merges the user's templates into a pod's, the later ones over the earlier.
pub(super) fn merge(mut into: PodTemplateSpec, templates: &[Option<&PodTemplate>]) -> PodTemplateSpec {
    for template in templates.iter().copied().flatten() {
        // A template that does not parse was never deployed: `validate` refuses it.
        let Ok(ParsedTemplate { template, .. }) = parse(template) else { continue };
        // A merge replaces the list; here the user's only add to the operator's.
        let tolerations = [tolerations(&into), tolerations(&template)].concat();
        into.merge_from(template);
        if let Some(pod) = &mut into.spec {
            pod.tolerations = Some(tolerations);
        }
    }
    into
}

fn tolerations(template: &PodTemplateSpec) -> Vec<Toleration> {
    template.spec.iter().flat_map(|pod| pod.tolerations.clone().unwrap_or_default()).collect()
}
