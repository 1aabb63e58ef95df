import type { DirectNote } from './model-centre.ts'
import type { PushNote } from './push.ts'

/** What a commit of the centre was; undefined for those of the servers themselves. */
export type CommitNote = PushNote | DirectNote | undefined
