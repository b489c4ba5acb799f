//! Entry points, by family. Each is thin: it fetches arguments the way its
//! backend does and calls the body that all backends share.

mod call;
mod cgroup;
mod fault;
mod lifecycle;
mod list;
mod lock;
mod map;
mod protect;
mod unmap;
