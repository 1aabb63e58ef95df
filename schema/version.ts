/**
 * Version of the schema; a migration each.
 *
 * 1  the eleven tables of the seeds, embeddings, sync
 */
export const SCHEMA_VERSION = 1
