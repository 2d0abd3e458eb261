//! Recognising markers in bytes read from a disk, whoever wrote them and wherever they lie.
//!
//! The same code looks before the wipe, where it must find every marker, and after it, where it must find none. Blocks
//! are recognised by the sector, so that half a marker left behind counts after the wipe and does not count before it.

use std::collections::HashMap;

use memchr::memmem::Finder;

use super::markers::{BLOCK, Markers, SECTOR, SECTORS, TOKEN};

/// Bytes of a sector that it is looked up by, before the whole is compared.
const HEAD: usize = 16;

/// Knows every marker of a run.
pub struct Recogniser {
    markers: Markers,
    contents: Vec<u8>,
    heads: HashMap<[u8; HEAD], usize>,
    prefix: Finder<'static>,
    rows: HashMap<Vec<u8>, usize>,
}

/// What a search met.
#[derive(Clone, Default)]
pub struct Findings {
    sectors: Vec<bool>,
    rows: Vec<bool>,
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes in sectors that were not all zero.
    pub not_zero: u64,
}

impl Recogniser {
    /// Of these markers.
    pub fn new(markers: Markers) -> Self {
        let blocks = (0..markers.volumes).flat_map(|v| (0..markers.blocks).map(move |b| (v, b)));
        let contents: Vec<u8> = blocks.flat_map(|(v, b)| markers.block(v, b)).collect();
        let heads = contents.chunks_exact(SECTOR).enumerate().filter_map(|(i, s)| Some((*s.first_chunk()?, i)));
        let rows = (0..markers.volumes).flat_map(|v| (0..markers.rows).map(move |r| (v, r)));
        let rows = rows.enumerate().map(|(i, (v, r))| (markers.token(v, r).into_bytes(), i));
        Self {
            heads: heads.collect(),
            rows: rows.collect(),
            prefix: Finder::new(markers.prefix().as_bytes()).into_owned(),
            contents,
            markers,
        }
    }

    /// The markers.
    pub fn markers(&self) -> &Markers {
        &self.markers
    }

    /// Begin a search.
    pub fn scan(&self) -> Scan<'_> {
        let findings = Findings {
            sectors: vec![false; self.contents.len() / SECTOR],
            rows: vec![false; self.rows.len()],
            ..Findings::default()
        };
        Scan { known: self, findings, carry: Vec::new() }
    }

    /// How many markers of one volume were found whole.
    pub fn whole(&self, findings: &Findings, volume: u32) -> u64 {
        let part = |all: u32| (volume as usize * all as usize)..((volume as usize + 1) * all as usize);
        let blocks = findings.sectors.chunks_exact(SECTORS).collect::<Vec<_>>();
        let blocks = blocks.get(part(self.markers.blocks)).unwrap_or_default();
        let rows = findings.rows.get(part(self.markers.rows)).unwrap_or_default();
        let blocks = blocks.iter().filter(|sectors| sectors.iter().all(|s| *s)).count();
        (blocks + rows.iter().filter(|r| **r).count()) as u64
    }

    /// How many markers of any volume were found, whole or in part.
    pub fn any(findings: &Findings) -> u64 {
        let blocks = findings.sectors.chunks_exact(SECTORS).filter(|sectors| sectors.contains(&true)).count();
        (blocks + findings.rows.iter().filter(|r| **r).count()) as u64
    }
}

impl Findings {
    /// Add what another search met.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.sectors, &other.sectors), (&mut self.rows, &other.rows)] {
            mine.resize(mine.len().max(theirs.len()), false);
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
        }
        self.bytes += other.bytes;
        self.not_zero += other.not_zero;
    }
}

/// A search under way: takes the bytes in order, in pieces of whole sectors.
pub struct Scan<'a> {
    known: &'a Recogniser,
    findings: Findings,
    /// The end of the piece before, in which a token may have begun.
    carry: Vec<u8>,
}

impl Scan<'_> {
    /// Look at the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.findings.bytes += piece.len() as u64;
        for sector in piece.chunks(SECTOR) {
            if sector == &[0; SECTOR][..sector.len()] {
                continue;
            }
            self.findings.not_zero += sector.len() as u64;
            let index = sector.first_chunk::<HEAD>().and_then(|head| self.known.heads.get(head));
            if let Some(index) = index
                && self.known.contents.get(index * SECTOR..(index + 1) * SECTOR) == Some(sector)
            {
                self.findings.sectors[*index] = true;
            }
        }
        let mut seam = std::mem::take(&mut self.carry);
        seam.extend_from_slice(&piece[..piece.len().min(TOKEN - 1)]);
        self.rows_in(&seam);
        self.rows_in(piece);
        let whole = if piece.len() < TOKEN { &seam } else { piece };
        self.carry = whole[whole.len().saturating_sub(TOKEN - 1)..].to_vec();
    }

    fn rows_in(&mut self, bytes: &[u8]) {
        for at in self.known.prefix.find_iter(bytes) {
            if let Some(row) = bytes.get(at..at + TOKEN).and_then(|token| self.known.rows.get(token)) {
                self.findings.rows[*row] = true;
            }
        }
    }

    /// What was met.
    pub fn findings(self) -> Findings {
        self.findings
    }
}

const _: () = assert!(BLOCK.is_multiple_of(SECTOR) && HEAD <= SECTOR);

#[cfg(test)]
mod tests;
