/** Limits that both sides know, so that the store refuses what the wire could not carry. */

/** Most mutations of one local transaction: it reaches the centre whole or not at all. */
export const TRANSACTION_MUTATIONS_MAX = 100_000
/** Most bytes of one local transaction's patches. */
export const TRANSACTION_BYTES_MAX = 48 * 1024 * 1024
/** Most bytes of one message, either way. */
export const MESSAGE_BYTES_MAX = 64 * 1024 * 1024
