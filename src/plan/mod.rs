//! What should exist: tables, chains and rules as data, each rule with its reason. Pure.

mod model;

pub use model::{
    BuiltinChain, ChainRef, Family, FamilyPlan, Match, OwnChain, PlacedRule, Placement, Plan, Rule, Table,
    TablePlan, Target,
};
