import type { PullResponse } from '../../sync/protocol/messages.ts'

/** A batch that brings nothing but its position, for transports that answer what a test wants. */
export const emptyBatch = (nonce: string, position: number): PullResponse => ({
  nonce,
  position,
  cursor: `cursor-${position}`,
  clock: 1,
  page: null,
  shapes: [],
  rows: [],
  gone: [],
  watermark: null,
  outcomes: [],
  conflicts: [],
})

/** A request that a test does not expect. */
export const refuse = (): Promise<never> => Promise.reject(new Error('is not asked for'))
