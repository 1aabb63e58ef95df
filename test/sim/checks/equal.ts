import type { Stored } from '../../../schema/codec.ts'

/** Whether two values are the same in the store; what is not given is null. */
export const equal = (a: Stored | undefined, b: Stored | undefined): boolean =>
  a instanceof Uint8Array && b instanceof Uint8Array
    ? Buffer.compare(a, b) === 0
    : (a ?? null) === (b ?? null)
