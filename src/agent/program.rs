//! Finds another program as a shell would, but never in the current folder.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The first executable file of this name in the folders of `path` (as `PATH` has them).
///
/// Relative and empty entries are skipped: a folder that somebody else can write is no place to run things from.
pub fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let absolute = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    absolute.map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_executable_files_of_absolute_folders_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("tool"), "").unwrap();
        }
        let path = std::env::join_paths([Path::new(""), Path::new("."), &first, &second]).unwrap();
        assert_eq!(find("tool", &path), None);
        fs::set_permissions(second.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("tool", &path), Some(second.join("tool")));
        fs::create_dir(first.join("folder")).unwrap();
        assert_eq!(find("folder", &path), None);
    }
}
