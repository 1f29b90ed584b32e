//! What several targets share.

/// Offset of the footer, checksum, magic.
const TRAILER: usize = 20;
const HEADER_START: usize = 16;
/// State, key group, length, number of entries, checksum.
const SECTION: usize = 24;

/// The bytes of a snapshot with the right checksum of each section and of header and footer, where these have a place.
pub fn with_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let trailer = bytes.len().checked_sub(TRAILER)?;
    let header = HEADER_START.checked_add(number(&bytes, 12, 4)?)?;
    let footer = number(&bytes, trailer, 8)?;
    let mut start = header;
    for at in (footer..trailer).step_by(SECTION).take_while(|at| at + SECTION <= trailer) {
        let end = start.checked_add(number(&bytes, at + 4, 8)?)?;
        let crc = crc32fast::hash(bytes.get(start..end)?);
        bytes[at + 20..at + SECTION].copy_from_slice(&crc.to_le_bytes());
        start = end;
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..header)?);
    crc.update(bytes.get(footer..trailer + 8)?);
    let crc = crc.finalize();
    bytes[trailer + 8..trailer + 12].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let mut number = [0; 8];
    number[..size].copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    usize::try_from(u64::from_le_bytes(number)).ok()
}
