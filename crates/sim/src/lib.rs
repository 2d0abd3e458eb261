//! An embedded cluster in one process, for the demo and the suites.
