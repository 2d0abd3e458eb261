//! Admission, the commit point (DESIGN §7): all Bedplate claims of a pod that have no volume yet are decided about together
//! on the node that the scheduler chose, against one ledger.
//!
//! Order of things, each step only when the one before is on record: no old attempt may still be alive; one attempt a claim
//! is ordered, all of one evaluation; all are Ready; each is marked; the PersistentVolumes are made. A misfit at any step
//! before the mark voids what was ordered, waits until the node has confirmed, and sends every claim back. Pure.

mod group;

use std::time::Instant;

use bedplate_api::local_volume::Phase;
use bedplate_api::names;

use crate::cluster::action::{Action, ClaimName, Decision, Notice};
use crate::cluster::case::{settle, void};
use crate::cluster::claim::{Judgement, Order, Refusal, judge};
use crate::cluster::config::Patience;
use crate::cluster::fit;
use crate::cluster::objects::{Claim, Local, Mark};
use crate::cluster::template::{self, Terms};
use crate::cluster::view::View;

pub use group::Group;

/// One claim of the group with what is known of it.
struct Member<'a> {
    claim: &'a Claim,
    order: Order,
    /// The attempt that counts, if there is one.
    current: Option<&'a Local>,
    /// Those that do not.
    old: Vec<&'a Local>,
}

/// Decide about a claim that is not bound, and about its pod's other claims with it.
pub fn decide(view: &View, claim: &Claim, now: Instant, patience: &Patience, decision: &mut Decision) {
    match judge(claim, view.class(&claim.class_name)) {
        Judgement::Leave => return leave(view, claim, decision),
        Judgement::Refuse(refusal) => return refuse(&Group::of(view, claim), claim, refusal, decision),
        Judgement::Doubt(refusal) => {
            leave(view, claim, decision);
            if view.pods_of(&claim.namespace, &claim.meta.name).next().is_some() {
                refuse(&Group::of(view, claim), claim, refusal, decision);
            }
            return;
        }
        Judgement::Make(_) => {}
    }
    let group = Group::of(view, claim);
    let lead = group.lead();
    if lead != claim.meta.uid {
        decision.follow = Some(lead.to_owned());
        return;
    }
    decision.holds.extend(group.claims.iter().map(|claim| claim.meta.uid.clone()));
    let Some(node) = claim.selected_node.as_deref() else { return };
    if group.pods.is_empty() && group.late.is_none() && !looked(view, claim) {
        decision.act(Action::Look { namespace: claim.namespace.clone() });
        return;
    }
    let Some(members) = members(view, &group, node, decision) else { return };
    let admission = Admission { view, group: &group, node, members, now, patience };
    match group.late {
        None => admission.run(decision),
        Some(late) => admission.wait_for(late, decision),
    }
}

/// A claim is refused, and the others of its pod wait for it.
fn refuse(group: &Group<'_>, claim: &Claim, refusal: Refusal, decision: &mut Decision) {
    for other in group.claims.iter().filter(|other| other.meta.uid != claim.meta.uid) {
        let message =
            format!("waits for claim {:?} of the same pod, which is refused: {}", claim.meta.name, refusal.message);
        decision.say(Notice::on_claim(other, names::REASON_SIBLING, message));
    }
    decision.say(Notice::on_claim(claim, refusal.reason, refusal.message));
}

/// A claim that nobody may act on now. Attempts that were ordered for it when it had a node are void.
fn leave(view: &View, claim: &Claim, decision: &mut Decision) {
    if claim.ours && claim.selected_node.is_none() {
        for local in view.locals_of(&claim.meta.uid) {
            if !local.is_over() || local.attempt < claim.attempt {
                settle(local, decision);
            }
        }
    }
}

/// Whether a live list, begun after the claim wanted its node, found no pod either: it has none.
fn looked(view: &View, claim: &Claim) -> bool {
    match (view.looked_at(&claim.namespace), view.wanted_since(&claim.meta.uid)) {
        (Some(looked), Some(wanted)) => looked >= wanted,
        _ => false,
    }
}

/// The group's claims, if all of them can be decided about.
fn members<'a>(view: &'a View, group: &Group<'a>, node: &str, decision: &mut Decision) -> Option<Vec<Member<'a>>> {
    let mut members = Vec::new();
    for claim in &group.claims {
        let order = match judge(claim, view.class(&claim.class_name)) {
            Judgement::Make(order) if claim.selected_node.as_deref() == Some(node) => order,
            Judgement::Refuse(refusal) => {
                refuse(group, claim, refusal, decision);
                return None;
            }
            // Left to a populator, or changed since: nothing is begun without it.
            Judgement::Make(_) | Judgement::Doubt(_) | Judgement::Leave => return None,
        };
        let mut member = Member { claim, order: *order, current: None, old: Vec::new() };
        for local in view.locals_of(&claim.meta.uid) {
            let alive = local.release.is_none() && local.node == node && local.attempt >= claim.attempt;
            if alive || (local.mark != Mark::Unbound && local.release.is_none()) {
                member.old.extend(member.current.replace(local));
            } else {
                member.old.push(local);
            }
        }
        members.push(member);
    }
    Some(members)
}

struct Admission<'a> {
    view: &'a View,
    group: &'a Group<'a>,
    node: &'a str,
    members: Vec<Member<'a>>,
    now: Instant,
    patience: &'a Patience,
}

impl Admission<'_> {
    fn run(&self, decision: &mut Decision) {
        if !self.old_ones_are_settled(decision) {
            return;
        }
        if self.is_deserted(decision) {
            return;
        }
        let refused = self.members.iter().filter_map(|m| m.current).find(|local| is_dead(local));
        if let Some(local) = refused {
            let why = if local.message.is_empty() { "its agent gave no reason" } else { &local.message };
            let message = format!("node {} refused the volume: {why}; the pod is scheduled anew", self.node);
            return self.send_back(names::REASON_MISFIT, &message, false, decision);
        }
        let missing: Vec<&Member<'_>> = self.members.iter().filter(|member| member.current.is_none()).collect();
        if missing.is_empty() { self.bind(decision) } else { self.order(&missing, decision) }
    }

    /// The scheduler has not finished with the pod. It is given a while; then all is scheduled anew.
    fn wait_for(&self, late: &str, decision: &mut Decision) {
        let since = self.view.wanted_since(self.group.lead());
        let waited = since.map_or_else(Default::default, |since| self.now.saturating_duration_since(since));
        if waited < self.patience.sibling {
            decision.again_in(self.patience.sibling.saturating_sub(waited));
            return;
        }
        let message = format!(
            "claim {late:?} of the same pod does not exist or was not given node {}, as this one was; the pod is scheduled \
             anew",
            self.node
        );
        self.send_back(names::REASON_SIBLING, &message, false, decision);
    }

    /// Void what does not count any more; whether all of it is confirmed gone, or its node is.
    fn old_ones_are_settled(&self, decision: &mut Decision) -> bool {
        let mut settled = true;
        for local in self.members.iter().flat_map(|member| &member.old) {
            if local.is_over() {
                if local.attempt < self.claim_of(local).map_or(0, |claim| claim.attempt) {
                    settle(local, decision);
                }
                continue;
            }
            if local.release.is_none() && local.mark == Mark::Unbound {
                decision.act(void(local));
                settled = false;
            } else if self.view.has_node(&local.node) && local.phase != Some(Phase::Lost) {
                settled = false;
            }
        }
        settled
    }

    fn claim_of(&self, local: &Local) -> Option<&Claim> {
        self.members.iter().map(|member| member.claim).find(|claim| claim.meta.uid == local.claim_uid)
    }

    /// Whether there is nobody on the node to ask. After a bounded wait the claims are sent back.
    fn is_deserted(&self, decision: &mut Decision) -> bool {
        let (node, view) = (self.node, self.view);
        // Whichever came later: the claim wants the node, or something of it went missing.
        let since = view.missing_since(node).max(view.wanted_since(self.group.lead()));
        let waited = since.map_or_else(Default::default, |since| self.now.saturating_duration_since(since));
        if !view.has_node(node) {
            if waited < self.patience.node {
                decision.again_in(self.patience.node.saturating_sub(waited));
            } else {
                let message = format!("node {node} does not exist any more; the pod is scheduled anew");
                self.send_back(names::REASON_NODE_GONE, &message, true, decision);
            }
            return true;
        }
        if view.has_agent(node) {
            return false;
        }
        let ordered = self.members.iter().any(|member| member.current.is_some());
        if waited < self.patience.agent {
            decision.again_in(self.patience.agent.saturating_sub(waited));
        } else if ordered {
            let message = format!(
                "node {node} has no agent any more and volumes are ordered there; waiting for it to come back. If the \
                 node is gone for good, delete its Node object"
            );
            self.tell(names::REASON_NO_AGENT, &message, decision);
        } else {
            let message = format!(
                "node {node} has no Bedplate agent (no StorageNode, or driver {} not in its CSINode); the pod is \
                 scheduled anew",
                names::DRIVER
            );
            self.send_back(names::REASON_NO_AGENT, &message, false, decision);
        }
        true
    }

    fn order(&self, missing: &[&Member<'_>], decision: &mut Decision) {
        if self.view.storage(self.node).is_none() {
            return;
        }
        if let Some(rewound) = self.view.rewound_at() {
            let waited = self.now.saturating_duration_since(rewound);
            if waited < self.patience.rewound {
                decision.again_in(self.patience.rewound.saturating_sub(waited));
                return;
            }
        }
        let mut orders = Vec::with_capacity(missing.len());
        let mut attempts = Vec::with_capacity(missing.len());
        for member in missing {
            let uid = &member.claim.meta.uid;
            let mut attempt = member.claim.attempt;
            // On whatever node: after a restored backup the claim may have its volume, with data, where it does not look.
            for (node, record) in self.view.records_of(uid) {
                // What was let go of here is gone by the node's own word, whatever an older record says.
                let unseen = self.view.local(&record.name).is_none() && !self.view.is_finished(&record.name);
                if unseen && matches!(record.phase, Phase::Reserved | Phase::Ready) && self.view.has_node(node) {
                    // The node has it and its object is missing: it is rebuilt first.
                    decision.again_in(self.patience.record);
                    return;
                }
                attempt = attempt.max(record.attempt + 1);
            }
            attempt = member.old.iter().map(|local| local.attempt + 1).fold(attempt, i64::max);
            attempts.push(attempt);
            orders.push(&member.order);
        }
        match fit::place(self.view, self.node, &orders) {
            Ok(spots) => {
                for ((member, spot), attempt) in missing.iter().zip(spots).zip(attempts) {
                    let Some(class) = self.view.class(&member.claim.class_name) else { continue };
                    let local = template::local(member.claim, class, &member.order, &spot, attempt);
                    decision.act(Action::Order(Box::new(local)));
                }
            }
            Err(misfit) => {
                let message = format!("does not fit on node {}: {misfit}; the pod is scheduled anew", self.node);
                self.send_back(names::REASON_MISFIT, &message, false, decision);
            }
        }
    }

    /// Every claim has its attempt: once all are Ready, make the PersistentVolumes.
    fn bind(&self, decision: &mut Decision) {
        let currents: Vec<(&Claim, &Local)> =
            self.members.iter().filter_map(|member| Some((member.claim, member.current?))).collect();
        if let Some((_, local)) = currents.iter().find(|(_, local)| local.phase != Some(Phase::Ready)) {
            let since = self.view.local_since(&local.meta.name);
            let waited = since.map_or_else(Default::default, |since| self.now.saturating_duration_since(since));
            if waited < self.patience.answer {
                decision.again_in(self.patience.answer.saturating_sub(waited));
            } else {
                let message = format!(
                    "the agent of node {} has not made LocalVolume {} yet ({}); still waiting",
                    self.node,
                    local.meta.name,
                    local.phase.map_or_else(|| "no answer".to_owned(), |phase| format!("{phase:?}"))
                );
                self.tell(names::REASON_WAITING, &message, decision);
            }
            return;
        }
        for (claim, local) in currents {
            let terms = Terms::of(Some(claim), self.view.class(&claim.class_name));
            let marked = local.mark != Mark::Unbound;
            decision.act(Action::Bind { local: local.meta.clone(), marked, terms });
        }
    }

    /// Back to the scheduler with all of them: first void what was ordered, then, when nothing of it is left, clear
    /// selected-node.
    fn send_back(&self, reason: &'static str, message: &str, node_is_gone: bool, decision: &mut Decision) {
        let mut settled = true;
        for local in self.members.iter().filter_map(|member| member.current) {
            if local.mark != Mark::Unbound {
                // It may have its PersistentVolume: it stays where it is.
                self.tell(reason, message, decision);
                return;
            }
            if local.is_over() {
                continue;
            }
            if local.release.is_none() {
                decision.act(void(local));
            }
            settled = false;
        }
        if !settled {
            self.tell(reason, message, decision);
            return;
        }
        for (index, claim) in self.group.claims.iter().enumerate() {
            let Some(node) = claim.selected_node.clone() else { continue };
            let member = self.members.iter().find(|member| member.claim.meta.uid == claim.meta.uid);
            let locals = member.iter().flat_map(|member| member.old.iter().copied().chain(member.current));
            let attempt = locals.map(|local| local.attempt + 1).fold(claim.attempt, i64::max);
            let mut notices = vec![Notice::on_claim(claim, reason, message)];
            if index == 0 {
                notices.extend(self.group.pods.iter().map(|pod| Notice::on_pod(pod, reason, message)));
            }
            decision.act(Action::Bounce {
                claim: ClaimName::from(*claim),
                node,
                attempt,
                node_must_be_gone: node_is_gone,
                notices,
            });
        }
    }

    fn tell(&self, reason: &'static str, message: &str, decision: &mut Decision) {
        for claim in &self.group.claims {
            decision.say(Notice::on_claim(claim, reason, message));
        }
    }
}

/// Whether an attempt can never become the claim's volume.
fn is_dead(local: &Local) -> bool {
    local.is_over()
        || local.mark == Mark::Unbound
            && (local.deleting
                || matches!(local.phase, Some(phase) if phase != Phase::Reserved && phase != Phase::Ready))
}
