//! Passages of the operator's own documents, which answer while no provider can.
//!
//! In reading order: [`passages`] (a document cut into pieces), [`index`] (which piece answers a question), [`folder`] (reading the
//! folder, again and again).

pub mod folder;
pub mod index;
pub mod passages;

use index::Index;

/// The answer that a passage makes, with its title and file; none where no passage holds enough of the question.
pub fn answer(index: &Index, question: &str) -> Option<String> {
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
