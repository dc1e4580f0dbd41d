/// Why a command on a host gave no answer. (grows in the next commit)
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {}
