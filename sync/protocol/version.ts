/**
 * Version of the wire. A change of any message's shape needs a new one; a test holds a hash of the shapes.
 *
 * 1  push, pull, live stream, checksum; msgpack by column with binary lanes, or JSON; br and gzip
 */
export const PROTOCOL_VERSION = 1
/** Oldest version that a server still understands. */
export const PROTOCOL_VERSION_MIN = 1

/** Numbers, in the sync log, of what travels beside the domain's tables. */
export const LogKind = { watermark: 100, outcome: 101, conflict: 102 } as const
