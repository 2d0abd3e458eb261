//! What the agent hears of the few objects that concern it: whole lists, then single changes.

use std::fmt::Debug;

use bedplate_edge::watch::{Selection, follow as events};
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::Resource;
use kube::api::Api;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum News<K> {
    /// Everything there is.
    Listed(Vec<K>),
    /// It was made or changed.
    Applied(K),
    /// It is gone; as it was last.
    Deleted(K),
}

/// News of the objects that `fields` select, for ever.
pub fn follow<K>(api: Api<K>, fields: String) -> BoxStream<'static, News<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut list = Vec::new();
    events(api, Selection::fields(fields))
        .filter_map(move |event| {
            let news = match event {
                // A list that was not finished tells nothing.
                Event::Init => {
                    list.clear();
                    None
                }
                Event::InitApply(object) => {
                    list.push(object);
                    None
                }
                Event::InitDone => Some(News::Listed(std::mem::take(&mut list))),
                Event::Apply(object) => Some(News::Applied(object)),
                Event::Delete(object) => Some(News::Deleted(object)),
            };
            std::future::ready(news)
        })
        .boxed()
}
