//! The word that opens the door.

use std::path::Path;

use subtle::ConstantTimeEq as _;

use crate::{
    agent::trusted::{self, Readers},
    error::{Error, Result},
};

/// Shortest token: shorter ones can be guessed.
const MIN_BYTES: usize = 16;

/// What a request has to bring along. Its value is never shown.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// Reads a file that has nothing else in it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where it cannot be read or trusted ([`trusted::read`]), or is too short.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong =
            |what: String| Error::Usage(format!("the token file {}: {what}", path.display()));
        let text = trusted::read(path, Readers::Group).map_err(|error| wrong(error.to_string()))?;
        let token = text.trim_ascii();
        if token.len() < MIN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(wrong(format!(
                "it must have at least {MIN_BYTES} letters and digits in one line, such as \
                 `openssl rand -hex 32` makes them"
            )));
        }
        Ok(Self(token.to_vec()))
    }

    /// Whether the value of `Authorization` has it. Takes the same time wherever the
    /// difference is.
    pub fn is_in(&self, value: &[u8]) -> bool {
        let Some((scheme, given)) = value.split_at_checked(b"Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && given.ct_eq(&self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_token_is_read_and_compared_whole() {
        let path = std::env::temp_dir().join(format!("mmwatch-token-{}", std::process::id()));
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Token::read(&path)
        };
        let token = write("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is_in(b"Bearer 0123456789abcdef"));
        assert!(token.is_in(b"bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic  0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong}");
        }
        let reason = |result: Result<Token>| result.err().unwrap().to_string();
        assert!(reason(write("0123456789abcdef", 0o604)).contains("everybody"));
        assert!(reason(write("short", 0o600)).contains("at least 16"));
        assert!(reason(write("0123456789 abcdef", 0o600)).contains("at least 16"));
        fs::remove_file(&path).unwrap();
        assert!(reason(Token::read(&path)).contains("No such file"));
    }
}
