import type { Refusal } from './transaction.ts'

/** Leaves a decision half way: its transaction is refused as a whole. */
export class RefusalSignal extends Error {
  readonly refusal: Refusal
  /** The rejected mutation that this one needed, if that is why. */
  readonly dependsOn: string | undefined

  constructor(refusal: Refusal, dependsOn?: string) {
    super(refusal.message)
    this.refusal = refusal
    this.dependsOn = dependsOn
  }
}

export const refuse = (reason: string, message: string, more: Partial<Refusal> = {}): never => {
  throw new RefusalSignal({ reason, message, ...more })
}
