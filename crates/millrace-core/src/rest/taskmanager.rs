//! Taskmanagers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::TaskManagerId;

/// `/taskmanagers`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskManagers {
    /// Those that are registered.
    pub taskmanagers: Vec<TaskManagerInfo>,
}

/// A taskmanager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskManagerInfo {
    /// Its id, which no other process has ever had.
    pub id: TaskManagerId,
    /// What `taskmanager.resource-id` calls it: the name of its pod, for example. One that is started again keeps it.
    #[serde(default)]
    pub resource_id: String,
    /// The address of its data port, `host:port`.
    pub path: String,
    /// Its data port.
    pub data_port: u16,
    /// When its last heartbeat came: a time, in spite of the name, as in Flink.
    pub time_since_last_heartbeat: u64,
    /// Its slots.
    pub slots_number: u32,
    /// Those that hold no subtask.
    pub free_slots: u32,
    /// The process's id on its host, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// What it runs on.
    #[serde(default)]
    pub hardware: Hardware,
    /// What it takes of its memory.
    #[serde(default)]
    pub memory: TaskManagerMemory,
}

/// What a process runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    /// How many cores it may use.
    pub cpu_cores: u32,
    /// The machine's memory in bytes.
    pub physical_memory: u64,
}

/// A taskmanager's memory in bytes, as its last heartbeat said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskManagerMemory {
    /// What the process takes of the machine's memory.
    pub resident: u64,
    /// What it may take: its own setting, its container's limit or the machine's memory.
    pub limit: u64,
    /// What the state backend may hold in memory, where it has a limit of its own (RocksDB's).
    pub managed_total: u64,
    /// What it holds of that: RocksDB's cache and the hot entries in front of its databases.
    pub managed_used: u64,
    /// The keyed state of its tasks: slots of tables on the heap, or RocksDB's files and hot entries.
    pub state_size: u64,
}

/// A taskmanager with the state of its tasks. `/taskmanagers/<id>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskManagerDetails {
    /// The taskmanager.
    #[serde(flatten)]
    pub info: TaskManagerInfo,
    /// The operators with keyed state that it runs, by subtask.
    #[serde(default)]
    pub operators: Vec<OperatorState>,
}

/// The keyed state of one subtask of one operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorState {
    /// The operator's uid.
    pub operator_id: String,
    /// Its name.
    pub operator_name: String,
    /// The subtask.
    pub subtask: u32,
    /// The bytes of all its states together.
    pub size: u64,
    /// Each state.
    pub states: Vec<StateInfo>,
}

/// One state of one subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StateInfo {
    /// Its name.
    pub name: String,
    /// The bytes of its tables' slots, filled or not, where it is on the heap: without what its values own elsewhere, such as
    /// texts, and without keys of more than 18 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// How often it was read or written.
    pub accesses: u64,
    /// How long an access takes, in nanoseconds, in the mean of samples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access_latency: Option<u64>,
}
