import type { Json } from '../../schema/define.ts'
import type { Polarity, TrajectoryOutcome } from '../../schema/tables/memory.ts'
import type { Row } from '../../schema/types.ts'

/** What an agent did for one task: a row of `memory_trajectories`. */
export type Trajectory = Row<'memory_trajectories'>

/** Of a trajectory what its items are made of and found by. */
export type TrajectorySource = Pick<
  Trajectory,
  'id' | 'task_id' | 'template_id' | 'query' | 'steps'
>

/** What was learned, with its vectors and counters: a row of `memory_items`. */
export type StoredMemoryItem = Row<'memory_items'>

/** A lesson in words, as the paper writes it. */
export interface MemoryItemText {
  /** What it is about, in a few words; one line. */
  readonly title: string
  /** One sentence: when to use it, or when not; one line. */
  readonly description: string
  /** The insight itself, one to a few sentences. */
  readonly content: string
}

export interface RecordTrajectory {
  /** Your name of the task. */
  readonly taskId: string
  /** The task in words; its embedding is what memories are found by. */
  readonly query: string
  /** What was thought and done, in order; `[{ think, action }]` where it is to be exported. */
  readonly steps: Json
  /** Model of the agent that acted. */
  readonly model?: string | undefined
  /** Kind of task, where many tasks differ in details only. */
  readonly templateId?: string | undefined
  /** Same id for several attempts of one task. */
  readonly attemptGroup?: string | undefined
  /** Where you know it. Default: `unknown`, until it is judged. */
  readonly outcome?: TrajectoryOutcome | undefined
  /** When it may be pruned. Default: never. */
  readonly expiresAt?: string | Date | undefined
}

/** Labels of a verdict: ours, and those of the paper's judge. */
export type JudgeLabel =
  | 'success'
  | 'failure'
  | 'impossible'
  | 'task-possible-bot-success'
  | 'task-possible-bot-fail'
  | 'task-impossible'

export interface Judgement {
  readonly label: JudgeLabel
  /** Why; kept with the trajectory, so that `distill` can read it. */
  readonly thoughts?: string | undefined
  /** 0 to 1. */
  readonly confidence?: number | undefined
  /** Model that judged. */
  readonly model?: string | undefined
}

/** Says how a trajectory ended: usually a call of your model. */
export type Judge = (trajectory: Trajectory) => Judgement | Promise<Judgement>

/** Items, or the Markdown of the paper's format. */
export type Distilled = string | readonly MemoryItemText[]

/** Draws lessons from one trajectory. */
export type Distill = (trajectory: Trajectory) => Distilled | Promise<Distilled>

/** The paper asks differently about successes and failures. */
export interface Distillers {
  readonly success: Distill
  readonly failure: Distill
}

/** Draws lessons from several attempts of one task, side by side. */
export type DistillContrast = (
  trajectories: readonly Trajectory[],
) => Distilled | Promise<Distilled>

export interface DistillOptions {
  /** When the items end. Default: never. */
  readonly expiresAt?: string | Date | undefined
}

export interface AppendItems extends DistillOptions {
  /** The task that they were learned from, in words. */
  readonly query: string
  readonly polarity: Polarity
  /** 1 to 50. */
  readonly items: readonly MemoryItemText[]
  readonly taskId?: string | undefined
  readonly templateId?: string | undefined
  readonly trajectoryIds?: readonly string[] | undefined
}

export interface RetrieveOptions {
  /** The task at hand, embedded by the store's embedder. Give this or `embedding`. */
  readonly query?: string | undefined
  readonly embedding?: Float32Array | undefined
  /** Model of `embedding`. Default: the store's. */
  readonly model?: string | undefined
  /**
   * What the embedder is told to do with the query, for models that take instructions: it then embeds
   * `Instruct: ...\nQuery: ...`, as the paper does.
   */
  readonly instruction?: string | undefined
  /** Records wanted, 1 to 100. Default: 1, as in the paper, where more did harm. */
  readonly k?: number | undefined
  /** Most items of all records together, 1 to 500. Default: 3. */
  readonly maxItems?: number | undefined
  readonly polarity?: Polarity | undefined
  /** Least score of an item, -1 to 1. Default: none. */
  readonly minScore?: number | undefined
  /**
   * `task` (default) compares with the tasks that items were learned from, as the paper does; `text` with the words of
   * each item: the items of the `k` nearest records then come by their own score, and those without a vector of their
   * words not at all.
   */
  readonly by?: 'task' | 'text' | undefined
  /** The time by which expiry is judged. Default: now. */
  readonly at?: string | Date | undefined
  /** Whether `retrieved_count` of what is returned goes up, which is a write. Default: true. */
  readonly count?: boolean | undefined
}

export interface RetrievedItem extends MemoryItemText {
  readonly id: string
  /** Items of one distillation have the same. */
  readonly recordId: string
  /** Cosine between the task at hand and that of the record, -1 to 1; by `text` between it and the words of the item. */
  readonly score: number
  readonly polarity: Polarity
  readonly sourceQuery: string
  readonly taskId: string | null
  readonly trajectoryIds: readonly (string | null)[]
  /** Items that say the opposite, as far as is known. */
  readonly contradicts: readonly (string | null)[]
  readonly used: number
  readonly helped: number
  readonly hurt: number
}

export interface Feedback {
  readonly itemId: string
  /** It was followed. Implied by `helped` and `hurt`. */
  readonly used?: boolean | undefined
  readonly helped?: boolean | undefined
  readonly hurt?: boolean | undefined
}
