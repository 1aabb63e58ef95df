import { anyQdrant, QdrantMissing } from '../../test/support/qdrant.ts'
import type { Missing } from '../peers/missing.ts'

export type BenchQdrant = Awaited<ReturnType<typeof anyQdrant>>

/** The Qdrant that is measured: the one of `QDRANT_URL`, else one of our own, which ends with the bench. */
export async function openQdrant(): Promise<BenchQdrant | Missing> {
  try {
    return await anyQdrant()
  } catch (error) {
    if (!(error instanceof QdrantMissing)) throw error
    return {
      missing: 'there is no Qdrant: npm ci has one for Linux on x64, QDRANT_URL names another',
    }
  }
}
