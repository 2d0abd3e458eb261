//! Label and field selectors: parsed once a request, asked for every object and every change.
//!
//! Grammar and messages follow the Kubernetes reference; which fields can be selected by is the resource's table row.

use serde_json::Value;

use super::refusal::Refusal;
use super::resources::Resource;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

/// Requirements on labels and fields; an empty one selects everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    labels: Vec<(String, Rule)>,
    /// JSON pointer, value, wanted equal or not.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    pub fn parse(res: &Resource, labels: Option<&str>, fields: Option<&str>) -> Result<Self, Refusal> {
        let labels = labels.map_or(Ok(Vec::new()), |text| parse_labels(text).map_err(Refusal::bad))?;
        let fields = fields.map_or(Ok(Vec::new()), |text| parse_fields(res, text))?;
        Ok(Self { labels, fields })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, value: &Value) -> bool {
        let labels = value.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|(key, rule)| rule.allows(label(key)))
            && self.fields.iter().all(|(pointer, wanted, equal)| (plain(value, pointer) == *wanted) == *equal)
    }
}

impl Rule {
    fn allows(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// A scalar as a field selector writes it; what is absent is "".
fn plain(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if pointer == "/spec/unschedulable" => "false".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn parse_fields(res: &Resource, selector: &str) -> Result<Vec<(String, String, bool)>, Refusal> {
    let terms = selector.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (path, value, true)
            } else {
                return Err(Refusal::bad(format!("invalid selector: '{term}'; can't understand '{term}'")));
            };
            let (head, rest) = path.split_once('.').unwrap_or((path, ""));
            let head = res.rules.renames.iter().find(|(_, served)| served == head).map_or(head, |(stored, _)| stored);
            let stored = if rest.is_empty() { head.to_owned() } else { format!("{head}.{rest}") };
            let known = match stored.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => res.namespaced,
                other => res.rules.selectable.iter().any(|field| field == other),
            };
            if !known {
                let message = if res.custom() {
                    format!("field label not supported: {path}")
                } else {
                    format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                };
                return Err(Refusal::bad(message));
            }
            let pointer = if stored == "source" { "source.component".to_owned() } else { stored };
            Ok((format!("/{}", pointer.replace('.', "/")), value.to_owned(), equal))
        })
        .collect()
}

fn parse_labels(selector: &str) -> Result<Vec<(String, Rule)>, String> {
    let mut tokens = Tokens { rest: selector };
    let mut rules = Vec::new();
    while let Some(first) = tokens.next() {
        let (key, rule) = if first == "!" {
            (tokens.word()?, Rule::Absent)
        } else if is_word(first) {
            (first.to_owned(), tokens.rule()?)
        } else {
            return Err(format!("unable to parse requirement: found '{first}', expected: !, identifier"));
        };
        rules.push((key, rule));
        match tokens.next() {
            None => break,
            Some(",") if tokens.peek().is_some() => {}
            Some(other) => return Err(format!("found '{other}', expected: ',' or end")),
        }
    }
    Ok(rules)
}

/// The parts of a label selector: words, and the signs between them.
struct Tokens<'a> {
    rest: &'a str,
}

fn is_word(token: &str) -> bool {
    !["!", "=", "==", "!=", ",", "(", ")", "<", ">"].contains(&token)
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let end = match rest.as_bytes() {
            [] => return None,
            [b'=' | b'!', b'=', ..] => 2,
            [b'=' | b'!' | b',' | b'(' | b')' | b'<' | b'>', ..] => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(rest.len()),
        };
        let (token, rest) = rest.split_at(end);
        self.rest = rest;
        Some(token)
    }

    fn peek(&self) -> Option<&'a str> {
        Tokens { rest: self.rest }.next()
    }

    fn word(&mut self) -> Result<String, String> {
        let token = self.next().filter(|token| is_word(token));
        token.map(str::to_owned).ok_or_else(|| "unable to parse requirement: expected: identifier".to_owned())
    }

    /// A value of `=`: may be empty.
    fn value(&mut self) -> String {
        match self.peek() {
            Some(token) if is_word(token) => self.next().unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    fn rule(&mut self) -> Result<Rule, String> {
        if matches!(self.peek(), None | Some(",")) {
            return Ok(Rule::Exists);
        }
        let number = |text: String| text.parse().map_err(|_| format!("'{text}' is no integer"));
        match self.next().unwrap_or_default() {
            "=" | "==" => Ok(Rule::In(vec![self.value()])),
            "!=" => Ok(Rule::NotIn(vec![self.value()])),
            "in" => Ok(Rule::In(self.set()?)),
            "notin" => Ok(Rule::NotIn(self.set()?)),
            ">" | "gt" => Ok(Rule::Above(number(self.value())?)),
            "<" | "lt" => Ok(Rule::Below(number(self.value())?)),
            other => {
                Err(format!("unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"))
            }
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        if self.next() != Some("(") {
            return Err("unable to parse requirement: expected: '('".to_owned());
        }
        let mut values = vec![self.value()];
        loop {
            match self.next() {
                Some(",") => values.push(self.value()),
                Some(")") => return Ok(values),
                _ => return Err("unable to parse requirement: expected: ',' or ')'".to_owned()),
            }
        }
    }
}
