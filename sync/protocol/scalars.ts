import { z } from 'zod'
import { isId } from '../../schema/values/id.ts'
import { fault } from './fault.ts'

export const whole = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)

/** The same checks for the many values of a lane. */
export function mustWhole(value: unknown, place: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    return fault(place, 'is no whole number')
  return value
}

export function mustId(value: unknown, place: string): string {
  return isId(value) ? value : fault(place, 'is no UUID')
}

const hex32 = /^[0-9a-f]{32}$/

export function mustTransactionId(value: unknown, place: string): string {
  if (typeof value !== 'string' || !hex32.test(value))
    return fault(place, 'is no id of a transaction')
  return value
}
