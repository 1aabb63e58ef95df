import { jwtVerify, SignJWT } from 'jose'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { isId } from '../../schema/values/id.ts'

/** What a token says: who, and as which agent. Role and status are read from `users` at each request. */
export interface Claims {
  readonly userId: string
  readonly agentId: string
}

export interface TokenOptions extends Claims {
  /** Default: 90 days. */
  readonly expiresInSeconds?: number | undefined
}

const ISSUER = 'agentdb'
const AUDIENCE = 'agentdb-sync'
const EXPIRES_IN_SECONDS = 90 * 24 * 3600

export async function signToken(options: TokenOptions, secret: Uint8Array): Promise<string> {
  const { userId, agentId, expiresInSeconds = EXPIRES_IN_SECONDS } = options
  if (!isId(userId))
    throw new AgentDBError(
      'INVALID_OPTION',
      `userId must be a lower-case UUID, got ${preview(userId)}`,
    )
  if (typeof agentId !== 'string' || agentId.length === 0 || agentId.length > 100) {
    throw new AgentDBError(
      'INVALID_OPTION',
      `agentId must have 1 to 100 characters, got ${preview(agentId)}`,
    )
  }
  if (!Number.isInteger(expiresInSeconds) || expiresInSeconds < 1) {
    throw new AgentDBError(
      'INVALID_OPTION',
      `expiresInSeconds must be a whole number above 0, got ${preview(expiresInSeconds)}`,
    )
  }
  return new SignJWT({ agent: agentId })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(userId)
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setIssuedAt()
    .setExpirationTime(Math.floor(Date.now() / 1000) + expiresInSeconds)
    .sign(secret)
}

export async function verifyToken(token: string, secret: Uint8Array): Promise<Claims> {
  try {
    const { payload } = await jwtVerify(token, secret, {
      issuer: ISSUER,
      audience: AUDIENCE,
      algorithms: ['HS256'],
    })
    if (isId(payload.sub) && typeof payload['agent'] === 'string') {
      return { userId: payload.sub, agentId: payload['agent'] }
    }
  } catch (error) {
    const expired = (error as { code?: unknown }).code === 'ERR_JWT_EXPIRED'
    throw new AgentDBError(
      'UNAUTHORIZED',
      expired ? 'the token has expired; get a new one' : 'the token is not valid here',
      { cause: error },
    )
  }
  throw new AgentDBError('UNAUTHORIZED', 'the token names no user and agent')
}
