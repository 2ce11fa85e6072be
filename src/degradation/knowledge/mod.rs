//! Passages of the operator's own documents, which answer while no provider can.
//!
//! In reading order: [`passages`] (splits a document), [`index`] (finds the passage that answers a
//! question), [`folder`] (scans the folder for changes).

pub mod folder;
pub mod index;
pub mod passages;

use index::PassageIndex;

/// Returns the best passage with its title and file. `None` if no passage covers the question.
pub fn answer(index: &PassageIndex, question: &str) -> Option<String> {
    let passage = index.find(question)?;
    let stem = passage
        .file
        .rsplit('/')
        .next()
        .and_then(|name| name.split('.').next());
    let source = if stem == Some(&*passage.title) {
        passage.file.to_string()
    } else {
        format!("{} ({})", passage.title, passage.file)
    };
    Some(format!("{}\n\n— {source}", passage.text))
}

#[cfg(test)]
mod labelled;
#[cfg(test)]
mod weight;
