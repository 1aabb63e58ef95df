/**
 * Version of the schema; a migration each.
 *
 * 1  the eleven tables of the seeds, embeddings, memory, sync
 */
export const SCHEMA_VERSION = 1

/**
 * How many versions a centre and an agent may be apart, either way: so the two can be upgraded one after the other, in
 * either order, while everything goes on.
 */
export const SCHEMA_SKEW_MAX = 1
