//! Circles of a graph: its strongly connected components of more than one node (Tarjan).

use std::collections::{BTreeMap, BTreeSet};

type Edges = BTreeMap<String, BTreeSet<String>>;

#[derive(Default)]
struct Walk<'a> {
    index: BTreeMap<&'a str, usize>,
    low: BTreeMap<&'a str, usize>,
    stack: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

/// Each sorted by name.
pub fn circles(edges: &Edges) -> Vec<Vec<String>> {
    let mut walk = Walk::default();
    for node in edges.keys() {
        if !walk.index.contains_key(&**node) {
            walk.visit(node, edges);
        }
    }
    walk.found
}

impl<'a> Walk<'a> {
    fn visit(&mut self, node: &'a str, edges: &'a Edges) {
        let place = self.index.len();
        self.index.insert(node, place);
        self.low.insert(node, place);
        self.stack.push(node);
        for next in edges.get(node).into_iter().flatten() {
            let reached = match self.index.get(&**next) {
                None => {
                    self.visit(next, edges);
                    self.low[&**next]
                }
                Some(at) if self.stack.contains(&&**next) => *at,
                Some(_) => continue,
            };
            let low = self.low[node].min(reached);
            self.low.insert(node, low);
        }
        if self.low[node] == place {
            let begin = self.stack.iter().position(|on| *on == node).unwrap();
            let mut circle: Vec<String> = self.stack.drain(begin..).map(str::to_owned).collect();
            circle.sort();
            if circle.len() > 1 {
                self.found.push(circle);
            }
        }
    }
}

#[test]
fn circles_are_found_and_lines_are_not() {
    let edges: Edges = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "a")]
        .map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])))
        .into_iter()
        .fold(Edges::new(), |mut all, (from, to)| {
            all.entry(from).or_default().extend(to);
            all
        });
    assert_eq!(circles(&edges), [["b", "c"]]);
}
