//! Labelled messages in four languages, with and without a request for a summary.

use super::*;

const TEXT: &str = "The harbour was dug in 1827. A canal links it with the sea. Today it handles steel, cars and grain.";
const LONG: &str = "The harbour was dug in 1827 and has grown ever since, because a canal links it with the sea; today it handles steel, cars \
    and grain, and its canal is being widened so that larger ships may reach it all year round without waiting for the tide.";

/// `@` is replaced by the text.
const SUMMARIES: [&str; 32] = [
    "Summarize this: @",
    "Summarise the following text:\n\n@",
    "Please summarize this article for me.\n@",
    "Can you summarise this? @",
    "Hi! Could you please summarize the text below?\n\n@",
    "TL;DR: @",
    "tldr this please\n@",
    "Sum this up for me: @",
    "Give me a short summary of this text:\n@",
    "Write a brief summary of the following e-mail. @",
    "What are the main points of this message? @",
    "I need a summary of this report:\n@",
    "Key points:\n@",
    "@\n\nSummarize the text above.",
    "@\nPlease summarise.",
    "@ Can you summarize this text?",
    "Summarise this in your own words: @",
    "Fasse diesen Text zusammen: @",
    "Bitte fassen Sie den folgenden Artikel zusammen:\n@",
    "Kannst du mir diesen Text kurz zusammenfassen? @",
    "Schreib mir eine kurze Zusammenfassung:\n@",
    "Zusammenfassung bitte:\n@",
    "@\n\nWas sind die Kernaussagen? Fass das bitte zusammen.",
    "Resume este texto: @",
    "Por favor, resuma el siguiente artículo:\n@",
    "¿Puedes resumir este correo? @",
    "Hazme un resumen de este texto:\n@",
    "Résume ce texte : @",
    "Pouvez-vous résumer l'article suivant ?\n@",
    "Fais-moi un résumé de ce texte :\n@",
    "Bonjour, peux-tu me faire une synthèse de cet article ? @",
    "@\n\nRésumez ce texte, s'il vous plaît.",
];

const OTHERS: [&str; 24] = [
    "Summarize this.",
    "Summarise this: too short",
    "Can you summarize your return policy?",
    "Summarise your terms for me. @",
    "I read the summary on your page. @",
    "Where do I find the summary of my orders? @",
    "To summarise: @",
    "In summary, I am not happy. @",
    "Don't summarize this: @",
    "@",
    "My resume is attached. @",
    "Resume my subscription. @",
    "What is a summary?",
    "How do I summarise a book? @",
    "The executive summary says this. @",
    "@ So what is the point of it?\nWhere is my refund?",
    "Wo ist die Zusammenfassung meiner Bestellung? @",
    "Zusammen kostet das viel. @",
    "En resumen, estoy contento. @",
    "¿Dónde está el resumen de mi pedido? @",
    "En résumé, je suis content. @",
    "Où est le résumé de ma commande ? @",
    "Translate this: @",
    "Shorten my delivery time. @",
];

#[test]
fn summary_requests_are_told_from_other_messages() {
    let mut wrong = Vec::new();
    for text in [TEXT, LONG] {
        for message in SUMMARIES {
            let filled = message.replace('@', text);
            let carried = match detect_intent(&filled) {
                Intent::Summarize { text, .. } => Some(text),
                _ => None,
            };
            if carried != Some(text) {
                wrong.push((filled.clone(), carried.map(str::to_owned)));
            }
        }
        for message in OTHERS {
            let filled = message.replace('@', text);
            if matches!(detect_intent(&filled), Intent::Summarize { .. }) {
                wrong.push((filled, Some("seen as one".to_owned())));
            }
        }
    }
    let total = 2 * (SUMMARIES.len() + OTHERS.len());
    println!("{} of {total} right", total - wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    let figure = format!(
        "The rules recognise {} labelled messages in four languages correctly",
        SUMMARIES.len() + OTHERS.len()
    );
    assert!(
        include_str!("../../../docs/knowledge.md").contains(&figure),
        "docs/knowledge.md does not say: {figure}"
    );
}

#[test]
fn generative_work_is_told_from_questions() {
    for message in [
        "Write me a poem",
        "Please translate this",
        "Übersetze das",
        "Escribe un cuento",
        "Raconte-moi une histoire",
        "Tell me a joke",
    ] {
        assert_eq!(detect_intent(message), Intent::Generate, "{message}");
    }
    for message in [
        "How do I write a review?",
        "Is there a translation?",
        "Discount code?",
        "Can I plan a visit?",
        "",
        "\u{301}:\n",
    ] {
        assert_eq!(detect_intent(message), Intent::Question, "{message}");
    }
}
