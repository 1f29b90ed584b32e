//! An authority of a test's own, for servers that speak TLS.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::super::{Result, io_error};

/// Signs certificates that nobody trusts who was not given this authority's own.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one. Two of the same name are two authorities.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("an authority can be made");
        Self { issuer }
    }

    /// Its certificate, as clients are given it.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes a key and its certificate for a server at an address, as MinIO wants them in a folder.
    pub(super) fn certify(&self, host: IpAddr, folder: &Path) -> Result<()> {
        let key = key();
        let params = CertificateParams::new([host.to_string()]).expect("an address can be certified");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let written = fs::create_dir(folder)
            .and_then(|()| fs::write(folder.join("public.crt"), certificate.pem()))
            .and_then(|()| fs::write(folder.join("private.key"), key.serialize_pem()));
        written.map_err(io_error(format!("writing certificates to {}", folder.display())))
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
