use std::collections::BTreeSet;

use object_store::ObjectStoreExt;

use super::*;

fn path(text: &str) -> Path {
    Path::from(text)
}

async fn create(store: &LocalStore, name: &str, text: &'static str) -> Result<PutResult> {
    store.put_opts(&path(name), Bytes::from_static(text.as_bytes()).into(), PutMode::Create.into()).await
}

async fn names(store: &LocalStore) -> Vec<String> {
    let mut names: Vec<_> = store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn what_exists_is_not_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    create(&store, "a/b/c", "first").await.unwrap();
    assert!(matches!(create(&store, "a/b/c", "second").await, Err(Error::AlreadyExists { .. })));
    assert_eq!(store.get(&path("a/b/c")).await.unwrap().bytes().await.unwrap(), "first");
    store.put(&path("a/b/c"), "third".into()).await.unwrap();
    assert_eq!(store.get(&path("a/b/c")).await.unwrap().bytes().await.unwrap(), "third");
    assert_eq!(names(&store).await, ["a/b/c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creates_at_once_exactly_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(dir.path()).unwrap());
    for round in 0..20 {
        let tasks = (0..8).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { create(&store, &format!("log/{round}"), "x").await.is_ok() })
        });
        let won = futures::future::join_all(tasks).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(names(&store).await.len(), 20);
}

/// Deleting the last file of a directory deletes the directory, under the feet of whoever creates a file in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creating_beside_deleting_does_not_fail() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(dir.path()).unwrap());
    let tasks = (0..4).map(|task| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..25 {
                let name = format!("job/chk/{task}-{round}");
                create(&store, &name, "x").await.unwrap();
                store.delete(&path(&name)).await.unwrap();
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(names(&store).await, Vec::<String>::new());
    assert!(dir.path().exists());
}

#[tokio::test]
async fn a_root_that_is_gone_is_an_error_and_not_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let store = LocalStore::open(&root).unwrap();
    create(&store, "a/b", "x").await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    let errors: BTreeSet<String> = [
        create(&store, "a/b", "x").await.unwrap_err(),
        store.get(&path("a/b")).await.unwrap_err(),
        store.list(None).try_collect::<Vec<_>>().await.unwrap_err(),
        store.list_with_offset(None, &path("a")).try_collect::<Vec<_>>().await.unwrap_err(),
        store.list_with_delimiter(None).await.unwrap_err(),
        store.put_multipart(&path("a/b")).await.unwrap_err(),
    ]
    .map(|error| error.to_string())
    .into();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors.iter().all(|error| error.contains("is gone")), "{errors:?}");
    assert!(!root.exists());
}

#[tokio::test]
async fn a_file_appears_when_it_is_whole_and_what_is_left_of_others_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut upload = store.put_multipart(&path("state")).await.unwrap();
    upload.put_part("first ".into()).await.unwrap();
    let unfinished = names(&store).await;
    assert!(unfinished.len() == 1 && unfinished[0].starts_with("state.") && unfinished[0].ends_with(UNFINISHED));
    upload.put_part("second".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(names(&store).await, ["state"]);
    assert_eq!(store.get(&path("state")).await.unwrap().bytes().await.unwrap(), "first second");
    assert!(upload.complete().await.is_err());

    let mut aborted = store.put_multipart(&path("other")).await.unwrap();
    aborted.put_part("x".into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(names(&store).await, ["state"]);
}
