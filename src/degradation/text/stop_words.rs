//! Stop words: articles, pronouns, the verbs around a question, courtesies.

use std::collections::HashSet;
use std::sync::LazyLock;

/// English, German, Spanish, French; lower case, without accents. Apart from the shortest, a stop
/// word of one language that carries meaning in another is left out.
const STOP_WORDS: [&str; 4] = [
    "a about after again all also am an and any anyone anything are as at be because been before being but by can \
     could did do does doing don done each either else even ever every few for find found from get gets getting give go going got had has \
     have having hello help her here hey hi him his hm how however i if im in into is isn it its just kindly know \
     let like long ll may me might mine more most much must my need needs no nor not now of off ok okay on once one only \
     or other our out over please question re really s say same see shall she should so some someone something soon still such \
     sure t tell than thank thanks that the their them then there these they thing things this those through to too under \
     until up us use used using ve very want was we were what when where whether which while who whom whose why will \
     with without wondering would yes yet you your yours able explain happen happens work works way long often anybody \
     difference mean means information info many currently possible actually",
    "aber alle allem allen aller alles als also am an ander andere auch auf aus bei beim bin bis bist bitte brauche \
     da dabei damit danach danke dann darf das dass dem den denn der des dich die dies diese diesem diesen dieser dieses dir \
     doch dort du durch ein eine einem einen einer eines er erklaren es etwas euch euer finde finden fur gab geht gibt guten habe haben \
     hallo hat hatte hier hin ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeder jedes jetzt kann \
     kannst kein keine keinen konnen konnte konnten lange machen mal man mehr mein meine meinem meinen meiner mich mir mit mochte muss \
     musst mussen nach nicht nichts noch nun nur ob oder oft ohne sagen schon sehr sein seine sich sie sind so soll \
     sollte tag tun uber um und uns unser unsere unter viel viele vom von vor wann war waren warum was weil welche welchem \
     welchen welcher welches wenn wer werde werden wie wieder wieviel will wir wird wo wofur woher wohin wurde wurden zu zum zur",
    "a al algo alguien algun alguna ante antes aqui asi aun aunque buenas buenos cada como con cual cuales cuando cuanto cuanta \
     cuantos cuantas de debo decir decirme del desde donde dos e encontrar encuentro encuentra el ella ellas ellos en entre era eres es esa ese eso esta estan \
     estar estas este esto estos estoy favor fue gracias ha hacer hago han has hasta hay he hola la las le les lo los mas me \
     mi mis mucho muy nada ni no nos nosotros nuestra nuestro o os otra otro para pero poder podria por porque puede pueden \
     puedo que quien quiero quisiera saber se ser si sin sobre son soy su sus tambien tan tanto te tengo tiene tienen todo todos \
     tu tus un una unas uno unos usted ustedes y ya yo necesito hace",
    "a ai alors au aucun aussi autre aux avant avec avez avoir avons beaucoup bien bonjour c ca ce cela celle celui ces cet \
     cette chez combien comme comment d dans de des dire dois doit donc dont du elle elles en encore entre est et etait etes etre \
     eu faire fait faut fois font il ils j je jusque l la le les leur leurs lui m ma mais me meme merci mes moi moins mon n \
     ne ni non nos notre nous on ont ou oui par pas pendant peu peut peux plait plus pour pouvez pourquoi pourrais \
     pouvoir puis qu quand que quel quelle quelles quels qui quoi sa salut sans se sera ses si sont sous suis sur \
     ta tes toi ton tous tout toute toutes tres trouve trouver tu un une va vais vers veux voudrais votre vos vous y",
];

static STOP_WORD_SETS: LazyLock<[HashSet<&str>; 4]> =
    LazyLock::new(|| STOP_WORDS.map(|words| words.split_whitespace().collect()));

pub(crate) fn is_stop_word(folded: &str) -> bool {
    STOP_WORD_SETS.iter().any(|words| words.contains(folded))
}

/// `true` for each language of which the folded word is a stop word: English, German, Spanish,
/// French.
pub(crate) fn stop_word_languages(folded: &str) -> [bool; 4] {
    STOP_WORD_SETS
        .each_ref()
        .map(|words| words.contains(folded))
}
