//! Lists the images that are built in, so that a new file in `images` needs no line of code.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("images");
    println!("cargo::rerun-if-changed=images");
    let mut files = Vec::new();
    find(&root, &mut files)?;
    files.sort();
    let mut list = String::from("[\n");
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file);
        // Writing to a String cannot fail.
        let _ =
            writeln!(list, "    ({:?}, include_bytes!({:?}).as_slice()),", name.display(), file.display());
    }
    list.push_str("]\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("images.rs"), list)
}

/// The files of a folder and of those in it, without the agent's, which is built in by itself.
fn find(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("images/agent") => {}
            true => find(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
