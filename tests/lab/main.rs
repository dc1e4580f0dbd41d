//! Against the real thing: sshd, PostgreSQL, a directory as mount, the built binary.

mod ssh;
