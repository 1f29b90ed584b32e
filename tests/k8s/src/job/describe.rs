//! What a failure message shows of a namespace: status, events, pods, and the ends of their logs.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, LogParams},
};

use super::{View, pods, resource};
use crate::{Result, cluster::OPERATOR_SELECTOR};

/// So much of a log is shown.
const TAIL: i64 = 25;
/// So many events.
const EVENTS: usize = 40;

/// Describes a namespace. What cannot be read is said so in its place.
pub async fn describe(client: &Client, namespace: &str) -> String {
    let mut text = format!("--- namespace {namespace}\n");
    for part in [jobs(client, namespace).await, events(client, namespace).await, pods_of(client, namespace).await] {
        text += &part.unwrap_or_else(|error| format!("{error:#}\n"));
    }
    text + &operators(client).await.unwrap_or_else(|error| format!("{error:#}\n"))
}

async fn jobs(client: &Client, namespace: &str) -> Result<String> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource());
    let listed = api.list(&ListParams::default()).await?;
    Ok(listed.into_iter().map(|object| View::from(object).describe()).collect())
}

async fn events(client: &Client, namespace: &str) -> Result<String> {
    let mut events = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
    events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
    let shown = &events[events.len().saturating_sub(EVENTS)..];
    let line = |event: &Event| {
        let object = event.involved_object.name.as_deref().unwrap_or_default();
        let reason = event.reason.as_deref().unwrap_or_default();
        let message = event.message.as_deref().unwrap_or_default();
        format!("{object}: {reason}: {message}\n")
    };
    Ok(format!("--- events\n{}", shown.iter().map(line).collect::<String>()))
}

async fn pods_of(client: &Client, namespace: &str) -> Result<String> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut text = String::from("--- pods\n");
    for pod in api.list(&ListParams::default()).await? {
        text += &pods::describe(&pod);
        for previous in [true, false] {
            let tail = LogParams { tail_lines: Some(TAIL), previous, ..LogParams::default() };
            // There is no log of a container that has not started, and no previous one of most.
            if let Ok(log) = api.logs(&pods::name(&pod), &tail).await
                && !log.is_empty()
            {
                let which = if previous { "log before its restart" } else { "log" };
                text += &format!("--- {}, end of its {which}:\n{log}\n", pods::name(&pod));
            }
        }
    }
    Ok(text)
}

async fn operators(client: &Client) -> Result<String> {
    let listed = Api::<Pod>::all(client.clone()).list(&ListParams::default().labels(OPERATOR_SELECTOR)).await?;
    let mut text = String::new();
    for pod in listed {
        let api = Api::<Pod>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let tail = LogParams { tail_lines: Some(TAIL), ..LogParams::default() };
        let log = api.logs(&pods::name(&pod), &tail).await.unwrap_or_else(|error| error.to_string());
        text += &format!("--- operator {}{log}\n", pods::describe(&pod));
    }
    Ok(text)
}
